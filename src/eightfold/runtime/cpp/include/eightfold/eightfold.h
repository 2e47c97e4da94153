/* Purpose: the C interface, for C and for every language that can call C.
 *
 * Ownership: eightfold_engine_load and eightfold_engine_run hand out handles, to be freed by the function of
 * that name; freeing NULL does nothing. What the functions of a result return lies in it until it is freed.
 * Thread safety: an engine may be used from many threads, a result from one at a time. Nothing here prints or
 * aborts. Errors: functions return an eightfold_status; eightfold_last_error() tells, in one line, what the
 * last failure in the calling thread was.
 *
 *   eightfold_engine *engine = NULL;
 *   eightfold_result *result = NULL;
 *   eightfold_image image = {pixels, width, height, EIGHTFOLD_BGR, 0};
 *   if (eightfold_engine_load("model.eightfold", NULL, &engine) != EIGHTFOLD_OK ||
 *       eightfold_engine_run(engine, &image, 1, &result) != EIGHTFOLD_OK) puts(eightfold_last_error());
 *   const eightfold_class *classes = NULL;
 *   size_t count = eightfold_result_classes(result, 0, &classes);
 */
#ifndef EIGHTFOLD_H
#define EIGHTFOLD_H

/* NOLINTBEGIN(modernize-*): C reads it too */
#include <stddef.h>
#include <stdint.h>

#include "eightfold/export.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum eightfold_status {
  EIGHTFOLD_OK = 0,
  EIGHTFOLD_USAGE = 1,     /* an argument is wrong */
  EIGHTFOLD_IMAGE = 2,     /* an image cannot be used */
  EIGHTFOLD_BUNDLE = 3,    /* a bundle cannot be read */
  EIGHTFOLD_INTEGRITY = 4, /* a file of a bundle differs from what its manifest says */
  EIGHTFOLD_MISSING_BACKEND =
      5,                 /* the back end is not part of this build, or the bundle has nothing for it */
  EIGHTFOLD_BACKEND = 6, /* a back end failed */
  EIGHTFOLD_BUILD = 7,   /* an engine builder refused the model */
  EIGHTFOLD_INTERNAL = 8 /* a fault of this library, or no memory left */
} eightfold_status;

typedef enum eightfold_pixel_format {
  EIGHTFOLD_RGB = 0,
  EIGHTFOLD_BGR = 1,
  EIGHTFOLD_GREY = 2,
  EIGHTFOLD_RGBA = 3,
  EIGHTFOLD_BGRA = 4,
  EIGHTFOLD_STORED = 5 /* any number of channels that are no colours */
} eightfold_pixel_format;

typedef enum eightfold_pixel_type { EIGHTFOLD_PIXELS_8 = 0, EIGHTFOLD_PIXELS_16 = 1 } eightfold_pixel_type;

typedef struct eightfold_engine eightfold_engine;
typedef struct eightfold_result eightfold_result;

/* All zero means: as in C++, EngineOptions{}. */
typedef struct eightfold_options {
  const char* backend;        /* NULL: pick one; "onnxruntime", "tensorrt" */
  const char* precision;      /* NULL: pick one; "fp32", "fp16", "bf16", "int8" */
  const char* variant;        /* NULL: pick one; "pruned", "baseline", ... */
  const char* provider;       /* NULL: "cpu"; of onnxruntime: "cuda", "tensorrt" */
  int32_t batch;              /* 0: all that there are */
  int32_t threads;            /* 0: the back end's own rule */
  int32_t preprocess_threads; /* 0: one */
  int32_t in_flight;          /* 0: one per processor */
  int32_t device;
  const char* public_key; /* NULL: any bundle; else the PEM file of the key that must have signed it */
  int32_t height;         /* of the images that the model takes; 0: the size that the bundle prefers */
  int32_t width;
} eightfold_options;

typedef struct eightfold_image {
  const void* data; /* of 16-bit pixels: at an even address */
  int32_t width;
  int32_t height;
  int32_t format;          /* an eightfold_pixel_format */
  size_t stride;           /* bytes from row to row; 0: rows follow each other without gaps */
  int32_t stored_channels; /* of EIGHTFOLD_STORED */
  int32_t type;            /* an eightfold_pixel_type */
} eightfold_image;

/* Here and below, `label` is the index of a class, whose name is eightfold_engine_label(engine, label). */
typedef struct eightfold_class {
  int32_t label;
  float score;
} eightfold_class;

/* Corners in pixels of the original image. */
typedef struct eightfold_detection {
  float x1, y1, x2, y2;
  float score;
  int32_t label;
} eightfold_detection;

/* The pixels that show one object, over the part of the image that its box covers: 0 or 1, row by row. */
typedef struct eightfold_mask {
  int32_t left, top, width, height;
  const uint8_t* pixels;
} eightfold_mask;

/* In pixels of the original image; `score` is the visibility, 1 where the network gives none. */
typedef struct eightfold_keypoint {
  float x, y;
  float score;
} eightfold_keypoint;

/* Of a turned box, in turn around it, in pixels of the original image and not cut to it. */
typedef struct eightfold_corners {
  float x1, y1, x2, y2, x3, y3, x4, y4;
} eightfold_corners;

/* An image that the network made: RGB, 3 bytes per pixel, row by row. */
typedef struct eightfold_picture {
  int32_t width, height;
  const uint8_t* pixels;
} eightfold_picture;

typedef enum eightfold_data_type {
  EIGHTFOLD_FLOAT32 = 0,
  EIGHTFOLD_FLOAT16 = 1,
  EIGHTFOLD_UINT8 = 2,
  EIGHTFOLD_INT8 = 3,
  EIGHTFOLD_INT32 = 4,
  EIGHTFOLD_INT64 = 5,
  EIGHTFOLD_BOOL = 6
} eightfold_data_type;

typedef struct eightfold_tensors eightfold_tensors;

/* An input or output of the model. The first side of its shape is the number of rows, one per image. */
typedef struct eightfold_tensor {
  const char* name; /* of an input that is passed: not looked at, the order counts */
  int32_t type;     /* an eightfold_data_type */
  const int64_t* shape;
  size_t rank;
  const void* data;
  size_t bytes;
} eightfold_tensor;
/* NOLINTEND(modernize-*) */

/* The version of the library, and the last failure in this thread ("" where there was none). Valid until the
 * next call in this thread. */
EIGHTFOLD_EXPORT const char* eightfold_version(void);
EIGHTFOLD_EXPORT const char* eightfold_last_error(void);

/* `options` may be NULL. */
EIGHTFOLD_EXPORT eightfold_status eightfold_engine_load(const char* path, const eightfold_options* options,
                                                        eightfold_engine** engine);
EIGHTFOLD_EXPORT void eightfold_engine_free(eightfold_engine* engine);
EIGHTFOLD_EXPORT eightfold_status eightfold_engine_warmup(const eightfold_engine* engine, int32_t runs);
EIGHTFOLD_EXPORT eightfold_status eightfold_engine_run(const eightfold_engine* engine,
                                                       const eightfold_image* images, size_t count,
                                                       eightfold_result** result);
/* What was picked and why, in words. Valid as long as the engine. */
EIGHTFOLD_EXPORT const char* eightfold_engine_describe(const eightfold_engine* engine);
/* The name of a class; NULL where the bundle has none for it. Valid as long as the engine. */
EIGHTFOLD_EXPORT const char* eightfold_engine_label(const eightfold_engine* engine, int32_t index);
/* One row of the model's input: its size, and the preprocessing alone, into `tensor` of that many bytes. */
EIGHTFOLD_EXPORT size_t eightfold_engine_row_bytes(const eightfold_engine* engine);
EIGHTFOLD_EXPORT eightfold_status eightfold_engine_preprocess(const eightfold_engine* engine,
                                                              const eightfold_image* image, void* tensor);

/* The model without preprocessing and decoding. The first function points `first` at the inputs, as the
 * smallest batch size has them, and returns how many there are; their data is NULL. The second runs any
 * number of rows; the outputs that it hands out are read with the third and freed with the fourth. */
EIGHTFOLD_EXPORT size_t eightfold_engine_inputs(const eightfold_engine* engine,
                                                const eightfold_tensor** first);
EIGHTFOLD_EXPORT eightfold_status eightfold_engine_run_tensors(const eightfold_engine* engine,
                                                               const eightfold_tensor* inputs, size_t count,
                                                               eightfold_tensors** outputs);
EIGHTFOLD_EXPORT size_t eightfold_tensors_list(const eightfold_tensors* tensors,
                                               const eightfold_tensor** first);
EIGHTFOLD_EXPORT void eightfold_tensors_free(eightfold_tensors* tensors);

EIGHTFOLD_EXPORT void eightfold_result_free(eightfold_result* result);
EIGHTFOLD_EXPORT size_t eightfold_result_count(const eightfold_result* result);
/* Parts of an image's prediction: they return how many there are and point `first` at them; 0 for a part that
 * the task does not have, or an image that is not there. */
EIGHTFOLD_EXPORT size_t eightfold_result_classes(const eightfold_result* result, size_t image,
                                                 const eightfold_class** first);
EIGHTFOLD_EXPORT size_t eightfold_result_detections(const eightfold_result* result, size_t image,
                                                    const eightfold_detection** first);
/* Over the original image, row by row: the class of each pixel, 255 where the network did not look; and the
 * opacity of the foreground, 0 to 1. They return the number of pixels. */
EIGHTFOLD_EXPORT size_t eightfold_result_segments(const eightfold_result* result, size_t image,
                                                  const uint8_t** first);
EIGHTFOLD_EXPORT size_t eightfold_result_alpha(const eightfold_result* result, size_t image,
                                               const float** first);
/* What some detectors have besides boxes: one mask, or the corners of one turned box, for each detection;
 * keypoints, as many for each detection, one detection after another. */
EIGHTFOLD_EXPORT size_t eightfold_result_masks(const eightfold_result* result, size_t image,
                                               const eightfold_mask** first);
EIGHTFOLD_EXPORT size_t eightfold_result_keypoints(const eightfold_result* result, size_t image,
                                                   const eightfold_keypoint** first);
EIGHTFOLD_EXPORT size_t eightfold_result_corners(const eightfold_result* result, size_t image,
                                                 const eightfold_corners** first);
/* A value for each pixel of the original image, row by row, in the network's unit; and the image that the
 * network made, 1 or none. */
EIGHTFOLD_EXPORT size_t eightfold_result_depth(const eightfold_result* result, size_t image,
                                               const float** first);
EIGHTFOLD_EXPORT size_t eightfold_result_pictures(const eightfold_result* result, size_t image,
                                                  const eightfold_picture** first);

#ifdef __cplusplus
}
#endif

#endif
