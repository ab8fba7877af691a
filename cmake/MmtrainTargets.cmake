# What every target of ours has in common: warnings, sanitizers, hidden symbols, the precompiled LibTorch header.

find_program(MMTRAIN_CCACHE ccache)
if(PROJECT_IS_TOP_LEVEL AND MMTRAIN_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # The sloppiness is what lets ccache work with precompiled headers; the base folder makes clones share their hits.
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env
    CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
    "CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}" "${MMTRAIN_CCACHE}")
endif()

function(mmtrain_target_defaults target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES
    CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON DEFINE_SYMBOL "")
  # Programs are compiled with -fPIC too: with the same flags everywhere, one precompiled header serves all.
  target_compile_options(${target} PRIVATE -fPIC -Wall -Wextra -Wpedantic -Wno-unknown-pragmas -fpch-preprocess)
  if(MMTRAIN_WERROR AND NOT MMTRAIN_SANITIZE) # with sanitizers GCC takes its own library for uninitialized
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(MMTRAIN_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${MMTRAIN_SANITIZE} -fno-sanitize-recover=all
      -fno-omit-frame-pointer -g1)
    target_link_options(${target} PRIVATE -fsanitize=${MMTRAIN_SANITIZE})
  endif()
endfunction()

# Sources that do not use torch compile in a second or two without its precompiled header; keep it away from them.
function(mmtrain_torch_free)
  set_source_files_properties(${ARGN} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
endfunction()

# LibTorch's headers cost 10-25 s a file: what all files need is precompiled once, in a target that holds nothing else.
# More would not be better: GCC instantiates the templates of a precompiled header anew in every file, used or not, 7 s of
# <torch/torch.h>, 3 s of these.
function(mmtrain_use_pch target)
  if(NOT MMTRAIN_PCH)
    return()
  endif()
  if(NOT TARGET mmtrain_pch)
    file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/mmtrain_pch.cpp" CONTENT "// CMake ties a header to a source file.\n")
    add_library(mmtrain_pch OBJECT EXCLUDE_FROM_ALL "${PROJECT_BINARY_DIR}/mmtrain_pch.cpp")
    mmtrain_target_defaults(mmtrain_pch)
    target_link_libraries(mmtrain_pch PRIVATE torch)
    target_precompile_headers(mmtrain_pch PRIVATE <torch/types.h> <torch/nn/module.h>)
  endif()
  target_precompile_headers(${target} REUSE_FROM mmtrain_pch)
endfunction()
