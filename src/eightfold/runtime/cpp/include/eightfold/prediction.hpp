// Purpose: what a prediction is. Which part is filled follows from the task; the others stay empty.
// Ownership: plain values. Passing the same objects to Engine::run again reuses their memory.
#pragma once

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

struct Prediction {
  std::vector<ClassScore> classes;    // "classify": the likeliest, best first
  std::vector<Detection> detections;  // "detect": best first
  Map<std::uint8_t> segments;  // "segment": the class of each pixel; 255 where the network did not look
  Map<float> alpha;            // "matte": opacity of the foreground, 0 to 1
};

}  // namespace eightfold
