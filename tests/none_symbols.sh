#!/bin/sh
# none_symbols.sh BACK_END.o NONE.o: a stand-in for a missing back end has exactly its public symbols, so that a build
# without the back end links and fails only where it is used.
set -eu

public_symbols() {
  [ -f "$1" ] || { echo "$1 is not built" >&2; exit 1; }
  readelf --syms --wide "$1" | awk '$5 == "GLOBAL" && $6 == "DEFAULT" && $7 != "UND" {print $8}' | sort | c++filt
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
public_symbols "$1" >"$work/back_end"
public_symbols "$2" >"$work/stand_in"
if [ ! -s "$work/back_end" ]; then
  echo "$1 has no public symbols: is it the right file?"
  exit 1
fi
diff "$work/back_end" "$work/stand_in" || {
  echo "'<' is missing in $2, '>' should not be there"
  exit 1
}
echo "$(wc -l <"$work/back_end") public symbols in both"
