// Purpose: what a prediction is. Which part is filled follows from the task; the others stay empty.
// Ownership: plain values. Passing the same objects to Engine::run again reuses their memory.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace eightfold {

// `label` is the index of a class, whose name is Engine::label(label); `score` lies between 0 and 1.
struct ClassScore {
  int label = 0;
  float score = 0;
};

// Corners in pixels of the original image.
struct Detection {
  float x1 = 0;
  float y1 = 0;
  float x2 = 0;
  float y2 = 0;
  float score = 0;
  int label = 0;
};

// Row by row, over the original image.
template <typename T>
struct Map {
  int width = 0;
  int height = 0;
  std::vector<T> values;
};

// The pixels that show one object, over the part of the image that its box covers: 0 or 1, row by row.
struct InstanceMask {
  int left = 0;
  int top = 0;
  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> values;
};

// In pixels of the original image; `score` is the visibility, 1 where the network gives none.
struct Keypoint {
  float x = 0;
  float y = 0;
  float score = 0;
};

struct Point {
  float x = 0;
  float y = 0;
};
// In turn around a box, in pixels of the original image and not cut to it.
using Corners = std::array<Point, 4>;

// RGB, 3 bytes per pixel, row by row; its size is that of the original image times the factors.
struct Picture {
  int width = 0;
  int height = 0;
  double vertical_factor = 1;
  double horizontal_factor = 1;
  std::vector<std::uint8_t> pixels;
};

struct Prediction {
  std::vector<ClassScore> classes;    // "classify": the likeliest, best first
  std::vector<Detection> detections;  // "detect": best first
  Map<std::uint8_t> segments;       // "segment": the class of each pixel; 255 where the network did not look
  Map<float> alpha;                 // "matte": opacity of the foreground, 0 to 1
  std::vector<InstanceMask> masks;  // "yolo-masks", "rcnn-masks": one for each detection
  std::vector<Keypoint>
      keypoints;  // "yolo-keypoints": as many for each detection, one detection after another
  std::vector<Corners>
      corners;       // "yolo-oriented": of each detection, whose box is the upright one around them
  Map<float> depth;  // "depth": in the network's unit
  Picture picture;   // "picture": what the network made
};

}  // namespace eightfold
