# What every target of ours has in common: warnings, sanitizers, hidden symbols, the precompiled LibTorch header.

find_program(MMTRAIN_CCACHE ccache)
if(PROJECT_IS_TOP_LEVEL AND MMTRAIN_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # The sloppiness lets ccache work together with precompiled headers.
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND};-E;env;CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime;${MMTRAIN_CCACHE}")
endif()

function(mmtrain_target_defaults target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES
    CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
    POSITION_INDEPENDENT_CODE ON DEFINE_SYMBOL "")
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wno-unknown-pragmas -fpch-preprocess)
  if(MMTRAIN_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(MMTRAIN_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${MMTRAIN_SANITIZE} -fno-omit-frame-pointer -g1)
    target_link_options(${target} PRIVATE -fsanitize=${MMTRAIN_SANITIZE})
  endif()
endfunction()

# Sources that do not use torch compile in a second or two without its precompiled header; keep it away from them.
function(mmtrain_torch_free)
  set_source_files_properties(${ARGN} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
endfunction()

# The header is precompiled once for libraries (-fPIC) and once for programs and tests (-fPIE).
function(mmtrain_use_pch target)
  if(NOT MMTRAIN_PCH)
    return()
  endif()
  get_target_property(_type ${target} TYPE)
  if(_type STREQUAL "EXECUTABLE")
    if(NOT TARGET mmtrain_pch_program)
      file(WRITE "${PROJECT_BINARY_DIR}/pch_program.cpp" "int main() { return 0; }\n")
      add_executable(mmtrain_pch_program EXCLUDE_FROM_ALL "${PROJECT_BINARY_DIR}/pch_program.cpp")
      mmtrain_target_defaults(mmtrain_pch_program)
      target_link_libraries(mmtrain_pch_program PRIVATE torch)
      target_precompile_headers(mmtrain_pch_program PRIVATE <torch/torch.h>)
    endif()
    target_precompile_headers(${target} REUSE_FROM mmtrain_pch_program)
  elseif(${target} STREQUAL mmtrain_core)
    target_precompile_headers(mmtrain_core PRIVATE <torch/torch.h>)
  else()
    target_precompile_headers(${target} REUSE_FROM mmtrain_core)
  endif()
endfunction()
