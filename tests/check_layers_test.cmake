# Shows that cmake/CheckLayers.cmake catches each kind of violation and accepts a correct tree.
#   cmake -DCHECK=.../CheckLayers.cmake -DWORK_DIR=... -P tests/check_layers_test.cmake
cmake_minimum_required(VERSION 3.25)

# A correct tree: core, io on core, media on core, data on io, train on data.
function(write_good_tree)
  file(REMOVE_RECURSE "${WORK_DIR}")
  write("include/mmtrain/core/error.h" "#include <stdexcept>")
  write("include/mmtrain/io/file.h" "#include <torch/types.h>" "#include <string_view>" "#include \"mmtrain/core/error.h\"")
  write("include/mmtrain/media/image.h" "#include <ATen/core/Tensor.h>")
  write("include/mmtrain/train/trainer.h" "#include <vector>")
  write("src/io/file.cpp" "#include \"mmtrain/io/file.h\"" "#include <fmt/format.h>" "#include \"core/posix.h\"")
  write("src/core/posix.h" "#include <unistd.h>")
  write("src/media/image.cpp" "#include \"mmtrain/media/image.h\"" "#include <opencv2/core.hpp>")
  write("src/media/image_none.cpp" "#include \"mmtrain/media/image.h\"")
  write("src/train/trainer.cpp" "#include \"mmtrain/train/trainer.h\"" "#include \"mmtrain/io/file.h\"")
endfunction()

function(write path)
  string(JOIN "\n" text ${ARGN})
  file(WRITE "${WORK_DIR}/${path}" "${text}\n")
endfunction()

function(run_check result output)
  execute_process(COMMAND ${CMAKE_COMMAND} -DROOT=${WORK_DIR} ${ARGN} -P ${CHECK}
    RESULT_VARIABLE code OUTPUT_VARIABLE out ERROR_VARIABLE err)
  string(REGEX REPLACE "[ \n]+" " " text "${out}${err}")
  set(${result} ${code} PARENT_SCOPE)
  set(${output} "${text}" PARENT_SCOPE)
endfunction()

# After `path` is written with the rest of the arguments, the check fails with `message`.
function(expect_violation message path)
  write_good_tree()
  write("${path}" ${ARGN})
  run_check(code text)
  string(FIND "${text}" "${message}" place)
  if(code EQUAL 0 OR place EQUAL -1 OR NOT text MATCHES " 1 violations of the layer table")
    message(SEND_ERROR "${path} with ${ARGN}: expected one violation '${message}', got ${code}: ${text}")
  endif()
endfunction()

write_good_tree()
run_check(code text)
if(NOT code EQUAL 0)
  message(SEND_ERROR "the correct tree is refused: ${text}")
endif()

expect_violation("io may not include \"mmtrain/train/trainer.h\" (train)" include/mmtrain/io/bad.h
  "#include \"mmtrain/train/trainer.h\"")
expect_violation("train may not include \"mmtrain/media/image.h\" (media)" src/train/trainer.cpp
  "#include \"mmtrain/train/trainer.h\"" "#include \"mmtrain/media/image.h\"")
expect_violation("core may not include \"io/file.h\" (io)" src/core/posix.h "  #  include \"io/file.h\" // inner")
expect_violation("may not include \"mmtrain/mmtrain.h\" (the umbrella)" include/mmtrain/io/bad.h
  "#include \"mmtrain/mmtrain.h\"")
expect_violation("a public header includes the standard library, LibTorch and mmtrain only, not <fmt/format.h>"
  include/mmtrain/io/bad.h "#include <fmt/format.h>")
expect_violation("not \"core/posix.h\"" include/mmtrain/io/bad.h "#include \"core/posix.h\"")
expect_violation("our own <mmtrain/core/error.h> is included with quotes" src/core/posix.h
  "#include <mmtrain/core/error.h>")
expect_violation("the first include is <vector>, not \"mmtrain/io/file.h\"" src/io/file.cpp
  "#include <vector>" "#include \"mmtrain/io/file.h\"")
expect_violation("the first include is <vector>, not \"mmtrain/media/image.h\"" src/media/image_none.cpp
  "#include <vector>")
expect_violation("the first include is <vector>" src/train/loop.cpp "#include <vector>")
expect_violation("gadgets is not in the layer table" include/mmtrain/gadgets/gadget.h "#include <vector>")

write_good_tree()
run_check(code text "-DCORE_SOURCES=src/io/file.cpp|src/media/image.cpp")
if(code EQUAL 0 OR NOT text MATCHES "src/media/image.cpp is of module media, which is no part of core_library")
  message(SEND_ERROR "a media source in the core library passes: ${code} ${text}")
endif()

file(REMOVE_RECURSE "${WORK_DIR}")
run_check(code text)
if(code EQUAL 0)
  message(SEND_ERROR "an empty tree passes: ${text}")
endif()
