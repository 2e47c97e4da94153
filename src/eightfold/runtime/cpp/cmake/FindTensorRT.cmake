# TensorRT with its ONNX parser and the CUDA runtime: as JetPack installs them, or below TENSORRT_ROOT and CUDA_ROOT.
# Defines the target TensorRT::TensorRT.
set(TENSORRT_ROOT "" CACHE PATH "Folder of a TensorRT release, with include/ and lib/")
set(CUDA_ROOT "/usr/local/cuda" CACHE PATH "Folder of the CUDA toolkit")

find_path(TensorRT_INCLUDE_DIR NvInfer.h
  HINTS ${TENSORRT_ROOT} PATH_SUFFIXES include include/${CMAKE_LIBRARY_ARCHITECTURE})
find_library(TensorRT_LIBRARY nvinfer HINTS ${TENSORRT_ROOT} PATH_SUFFIXES lib lib/${CMAKE_LIBRARY_ARCHITECTURE})
find_library(TensorRT_PARSER_LIBRARY nvonnxparser
  HINTS ${TENSORRT_ROOT} PATH_SUFFIXES lib lib/${CMAKE_LIBRARY_ARCHITECTURE})
find_library(TensorRT_PLUGIN_LIBRARY nvinfer_plugin
  HINTS ${TENSORRT_ROOT} PATH_SUFFIXES lib lib/${CMAKE_LIBRARY_ARCHITECTURE})
find_path(TensorRT_CUDA_INCLUDE_DIR cuda_runtime_api.h HINTS ${CUDA_ROOT} PATH_SUFFIXES include)
find_library(TensorRT_CUDART_LIBRARY cudart HINTS ${CUDA_ROOT} PATH_SUFFIXES lib64 lib)

if(TENSORRT_ROOT AND NOT EXISTS "${TENSORRT_ROOT}")
  message(FATAL_ERROR "TENSORRT_ROOT is ${TENSORRT_ROOT}, which does not exist: name the folder of a TensorRT release")
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TensorRT REQUIRED_VARS TensorRT_LIBRARY TensorRT_PARSER_LIBRARY
  TensorRT_PLUGIN_LIBRARY TensorRT_INCLUDE_DIR TensorRT_CUDA_INCLUDE_DIR TensorRT_CUDART_LIBRARY)
mark_as_advanced(TensorRT_INCLUDE_DIR TensorRT_LIBRARY TensorRT_PARSER_LIBRARY TensorRT_PLUGIN_LIBRARY TensorRT_CUDA_INCLUDE_DIR
  TensorRT_CUDART_LIBRARY)

if(TensorRT_FOUND AND NOT TARGET TensorRT::TensorRT)
  add_library(TensorRT::TensorRT SHARED IMPORTED)
  set_target_properties(TensorRT::TensorRT PROPERTIES
    IMPORTED_LOCATION "${TensorRT_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${TensorRT_INCLUDE_DIR};${TensorRT_CUDA_INCLUDE_DIR}"
    INTERFACE_LINK_LIBRARIES "${TensorRT_PARSER_LIBRARY};${TensorRT_PLUGIN_LIBRARY};${TensorRT_CUDART_LIBRARY}")
endif()
