# Finds LibTorch without its CUDA probe. Used by our build and, installed, by the package config.
#
# A CUDA build of LibTorch calls find_package(CUDA) and enable_language(CUDA) in every consumer, which needs a
# toolkit and breaks CMAKE_CXX_STANDARD 20 (pytorch#104237). Its probe returns at once where the target
# torch::cudart exists already, so an empty stand-in is enough: no toolkit, nvcc or Python is needed to link.
# Set MMTRAIN_TORCH_CUDA_PROBE to run LibTorch's own probe instead.
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL TRUE) # so that a parent project that adds us as a subdirectory sees torch
if(NOT TARGET torch::cudart AND NOT MMTRAIN_TORCH_CUDA_PROBE)
  add_library(torch::cudart INTERFACE IMPORTED GLOBAL)
endif()
if(NOT TARGET torch)
  set(_mmtrain_log_level "${CMAKE_MESSAGE_LOG_LEVEL}")
  set(CMAKE_MESSAGE_LOG_LEVEL ERROR) # "library kineto not found" is harmless and comes always
  find_package(Torch QUIET)
  set(CMAKE_MESSAGE_LOG_LEVEL "${_mmtrain_log_level}")
  if(NOT Torch_FOUND)
    message(FATAL_ERROR
      "mmtrain: LibTorch was not found. Give its place, for example\n"
      "  cmake -DCMAKE_PREFIX_PATH=\"$(python3 -c 'import torch; print(torch.utils.cmake_prefix_path)')\" ...\n"
      "or run `make quickstart` in the mmtrain source tree, which installs it.")
  endif()
endif()
if(Torch_VERSION AND Torch_VERSION VERSION_LESS 2.6)
  message(FATAL_ERROR "mmtrain: LibTorch ${Torch_VERSION} is too old; 2.11 is the supported version.")
endif()
