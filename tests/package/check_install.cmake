# Installs the build into a fresh prefix and checks what is there: nothing but the package, all of it, independent of
# source and build folder; an installed program runs.
cmake_minimum_required(VERSION 3.25)

file(REMOVE_RECURSE "${WORK_DIR}")
execute_process(COMMAND ${CMAKE_COMMAND} --install "${BUILD_DIR}" --prefix "${PREFIX}"
  OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)

# Headers: exactly those of the source tree, and the version.
file(GLOB_RECURSE installed RELATIVE "${PREFIX}/include" "${PREFIX}/include/*")
file(GLOB_RECURSE expected RELATIVE "${SOURCE_DIR}/libmmtrain/include" "${SOURCE_DIR}/libmmtrain/include/*.h")
list(APPEND expected mmtrain/core/version.h)
list(SORT installed)
list(SORT expected)
if(NOT installed STREQUAL expected)
  message(SEND_ERROR "installed headers differ from those under include/:\n${installed}\n${expected}")
endif()

file(GLOB_RECURSE files RELATIVE "${PREFIX}" "${PREFIX}/*")
list(FILTER files EXCLUDE REGEX "^(include/mmtrain/.*\\.h|lib[^/]*/(.*/)?libmmtrain_(core|media)\\.so[.0-9]*|bin/[a-z_]+)$")
list(FILTER files EXCLUDE REGEX "^lib.*/cmake/mmtrain/(mmtrainConfig|mmtrainConfigVersion|mmtrainTargets[-a-z]*|mmtrain-find-torch)\\.cmake$")
if(files)
  message(SEND_ERROR "installed, but no part of the package: ${files}")
endif()

# What is private to the libraries, and where they were built, must not reach a consumer.
file(GLOB_RECURSE configs "${PREFIX}/lib*/mmtrain*.cmake")
if(NOT configs)
  message(SEND_ERROR "no package config was installed")
endif()
foreach(config IN LISTS configs)
  file(READ "${config}" text)
  foreach(foreign IN ITEMS opencv OpenCV fmt nlohmann JPEG CLI11 Catch2 "${SOURCE_DIR}/" "${BUILD_DIR}/")
    string(FIND "${text}" "${foreign}" place)
    if(NOT place EQUAL -1)
      message(SEND_ERROR "${config} mentions ${foreign}")
    endif()
  endforeach()
endforeach()

execute_process(COMMAND ${CMAKE_COMMAND} -E env --unset=LD_LIBRARY_PATH "${PREFIX}/bin/${PROGRAM}" --version
  COMMAND_ERROR_IS_FATAL ANY)
