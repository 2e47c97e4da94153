// Show what a bundle sees in a camera: camera BUNDLE [NUMBER OF THE CAMERA]. The same in Python: camera.py.
#include <cstdio>
#include <cstdlib>
#include <opencv2/highgui.hpp>
#include <opencv2/imgproc.hpp>
#include <opencv2/videoio.hpp>

#include "eightfold/eightfold.hpp"

static void draw(cv::Mat& frame, const eightfold::Engine& engine, const eightfold::Prediction& prediction) {
  const cv::Scalar green(0, 255, 0);
  for (const eightfold::Detection& found : prediction.detections) {
    const cv::Point corner(static_cast<int>(found.x1), static_cast<int>(found.y1));
    cv::rectangle(frame, corner, cv::Point(static_cast<int>(found.x2), static_cast<int>(found.y2)), green, 2);
    cv::putText(frame, engine.label(found.label), corner, cv::FONT_HERSHEY_SIMPLEX, 0.6, green, 2);
  }
  if (prediction.classes.empty()) return;
  cv::putText(frame, engine.label(prediction.classes[0].label), {10, 30}, cv::FONT_HERSHEY_SIMPLEX, 1, green,
              2);
}

int main(int count, char** words) try {
  if (count < 2) return std::fputs("usage: camera BUNDLE [CAMERA]\n", stderr), 2;
  const eightfold::Engine engine = eightfold::Engine::load(words[1]);
  engine.warmup();
  cv::VideoCapture camera(count > 2 ? std::atoi(words[2]) : 0);
  if (!camera.isOpened()) return std::fputs("camera: it cannot be opened\n", stderr), 1;
  std::vector<eightfold::Prediction> predictions;
  for (cv::Mat frame; camera.read(frame) && cv::waitKey(1) != 'q';) {
    engine.run(
        {eightfold::ImageView{frame.data, frame.cols, frame.rows, eightfold::PixelFormat::bgr, frame.step}},
        predictions);
    draw(frame, engine, predictions[0]);
    cv::imshow("eightfold", frame);
  }
  return 0;
} catch (const eightfold::Error& error) {
  std::fprintf(stderr, "camera: %s\n", error.what());
  return 1;
}
