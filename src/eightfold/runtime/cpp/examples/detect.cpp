// Finds objects in an image: eightfold-detect BUNDLE IMAGE (JPEG or PNG).
#include <cstdio>
#include <memory>
#include <vector>

#include "eightfold/eightfold.hpp"

#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>

int main(int count, char** words) try {
  if (count != 3) return std::fputs("usage: eightfold-detect BUNDLE IMAGE\n", stderr), 2;
  const eightfold::Engine engine = eightfold::Engine::load(words[1]);

  int width = 0, height = 0, channels = 0;
  const std::unique_ptr<unsigned char, decltype(&stbi_image_free)> pixels(
      stbi_load(words[2], &width, &height, &channels, 3), &stbi_image_free);
  if (!pixels) return std::fprintf(stderr, "%s cannot be read\n", words[2]), 1;

  const eightfold::ImageView image{pixels.get(), width, height, eightfold::PixelFormat::rgb};
  const std::vector<eightfold::Prediction> predictions = engine.run({image});
  for (const eightfold::Detection& found : predictions[0].detections)  // corners in pixels of the image
    std::printf("%s %.4f  %.1f %.1f %.1f %.1f\n", engine.label(found.label).c_str(), found.score, found.x1,
                found.y1, found.x2, found.y2);
  return 0;
} catch (const eightfold::Error& error) {
  std::fprintf(stderr, "eightfold-detect: %s\n", error.what());
  return 1;
}
