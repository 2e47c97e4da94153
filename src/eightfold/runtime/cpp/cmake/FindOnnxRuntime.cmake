# ONNX Runtime's C and C++ interface: a release archive named by ONNXRUNTIME_ROOT and nowhere else, or what is installed.
# Defines the target OnnxRuntime::OnnxRuntime.
set(ONNXRUNTIME_ROOT "" CACHE PATH "Folder of an ONNX Runtime release, with include/ and lib/")

if(ONNXRUNTIME_ROOT)
  find_path(OnnxRuntime_INCLUDE_DIR onnxruntime_cxx_api.h HINTS ${ONNXRUNTIME_ROOT}
    PATH_SUFFIXES include include/onnxruntime NO_DEFAULT_PATH)
  find_library(OnnxRuntime_LIBRARY onnxruntime HINTS ${ONNXRUNTIME_ROOT} PATH_SUFFIXES lib lib64 NO_DEFAULT_PATH)
  if(NOT OnnxRuntime_INCLUDE_DIR OR NOT OnnxRuntime_LIBRARY)
    message(FATAL_ERROR "ONNXRUNTIME_ROOT is ${ONNXRUNTIME_ROOT}, where include/onnxruntime_cxx_api.h or "
      "lib/libonnxruntime.so is missing: name the folder of an unpacked release archive of ONNX Runtime, or one that "
      "deps.sh made; a wheel has no headers")
  endif()
endif()
find_path(OnnxRuntime_INCLUDE_DIR onnxruntime_cxx_api.h PATH_SUFFIXES include/onnxruntime onnxruntime)
find_library(OnnxRuntime_LIBRARY onnxruntime)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OnnxRuntime REQUIRED_VARS OnnxRuntime_LIBRARY OnnxRuntime_INCLUDE_DIR)
mark_as_advanced(OnnxRuntime_INCLUDE_DIR OnnxRuntime_LIBRARY)

if(OnnxRuntime_FOUND AND NOT TARGET OnnxRuntime::OnnxRuntime)
  add_library(OnnxRuntime::OnnxRuntime SHARED IMPORTED)
  set_target_properties(OnnxRuntime::OnnxRuntime PROPERTIES
    IMPORTED_LOCATION "${OnnxRuntime_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${OnnxRuntime_INCLUDE_DIR}")
endif()
