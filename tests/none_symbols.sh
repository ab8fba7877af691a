#!/bin/sh
# none_symbols.sh STAND_IN.o BACK_END.o...: what stands in for a missing back end has exactly its public symbols, so that
# a build without the back end links and fails only where it is used.
set -eu

public_symbols() {
  for object in "$@"; do
    [ -f "$object" ] || { echo "$object is not built" >&2; exit 1; }
    readelf --syms --wide "$object" | awk '$5 == "GLOBAL" && $6 == "DEFAULT" && $7 != "UND" {print $8}'
  done | sort | c++filt
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stand_in=$1
shift
public_symbols "$stand_in" >"$work/stand_in"
public_symbols "$@" >"$work/back_end"
if [ ! -s "$work/back_end" ]; then
  echo "no public symbols in: $*"
  exit 1
fi
diff "$work/back_end" "$work/stand_in" || {
  echo "'<' is missing in $stand_in, '>' should not be there"
  exit 1
}
echo "$(wc -l <"$work/back_end") public symbols in both"
