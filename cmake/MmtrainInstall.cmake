# Install rules and the package config. Only what is under include/ and what is built is installed.
include(CMakePackageConfigHelpers)
set(_config_dir "${CMAKE_INSTALL_LIBDIR}/cmake/mmtrain")

# Libraries and programs find each other beside them, and LibTorch where it was at link time.
set_target_properties(mmtrain_core mmtrain_media PROPERTIES
  INSTALL_RPATH "$ORIGIN" INSTALL_RPATH_USE_LINK_PATH ON)

install(TARGETS mmtrain_core mmtrain_media mmtrain EXPORT mmtrainTargets
  LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT mmtrainTargets NAMESPACE mmtrain:: DESTINATION "${_config_dir}")

string(REGEX MATCH "^[0-9]+\\.[0-9]+" MMTRAIN_TORCH_SERIES "${Torch_VERSION}")
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/mmtrainConfig.cmake.in"
  "${PROJECT_BINARY_DIR}/cmake/mmtrainConfig.cmake" INSTALL_DESTINATION "${_config_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/cmake/mmtrainConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES
  "${PROJECT_BINARY_DIR}/cmake/mmtrainConfig.cmake" "${PROJECT_BINARY_DIR}/cmake/mmtrainConfigVersion.cmake"
  "${PROJECT_SOURCE_DIR}/cmake/mmtrain-find-torch.cmake"
  DESTINATION "${_config_dir}")
