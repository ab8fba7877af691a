# Finds LibTorch without its CUDA probe. Used by our build and, installed, by the package config.
# Sets mmtrain_torch_problem to a text that says what to do, or to nothing where all is well.
#
# A CUDA build of LibTorch calls find_package(CUDA) and enable_language(CUDA) in every consumer, which needs a
# toolkit and breaks CMAKE_CXX_STANDARD 20 (pytorch#104237). Its probe returns at once where the target
# torch::cudart exists already, so an empty stand-in is enough: no toolkit, nvcc or Python is needed to link.
# Set MMTRAIN_TORCH_CUDA_PROBE to run LibTorch's own probe instead.
set(mmtrain_torch_problem "")
if(NOT TARGET torch::cudart AND NOT MMTRAIN_TORCH_CUDA_PROBE)
  add_library(torch::cudart INTERFACE IMPORTED GLOBAL)
endif()
if(NOT TARGET torch)
  set(_mmtrain_log_level "${CMAKE_MESSAGE_LOG_LEVEL}")
  set(_mmtrain_targets_global "${CMAKE_FIND_PACKAGE_TARGETS_GLOBAL}")
  set(CMAKE_MESSAGE_LOG_LEVEL ERROR)         # "library kineto not found" is harmless and comes always
  set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL TRUE) # so that a project that adds us as a subdirectory sees torch
  find_package(Torch QUIET PATHS ${MMTRAIN_TORCH_FALLBACK})
  set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL "${_mmtrain_targets_global}")
  set(CMAKE_MESSAGE_LOG_LEVEL "${_mmtrain_log_level}")
endif()
if(NOT TARGET torch)
  set(mmtrain_torch_problem
    "LibTorch was not found. Give its place, for example\n"
    "  cmake -DCMAKE_PREFIX_PATH=\"$(python3 -c 'import torch; print(torch.utils.cmake_prefix_path)')\" ...\n"
    "or run `make quickstart` in the mmtrain source tree, which installs it.")
  list(JOIN mmtrain_torch_problem "" mmtrain_torch_problem)
endif()
