"""Show what a network sees in a camera's pictures, until q is pressed.

Usage: python examples/camera.py BUNDLE [CAMERA]
CAMERA: a number, a video file or a stream's address; 0 when left out. Needs opencv-python for its window; without a
screen, `eightfold predict BUNDLE 0 --save annotated` writes a video instead.
"""

from __future__ import annotations

import sys
import time

import cv2

import eightfold as ef
from eightfold.runtime.predict.draw import draw


def main(bundle: str, camera: str = "0") -> None:
    with ef.Predictor(bundle) as predictor:
        print(predictor.describe())
        predictor.warmup()
        before = time.monotonic()
        for prediction in ef.predict_sources(predictor, [camera]):
            picture = draw(prediction.frame.pixels, prediction.result)
            now = time.monotonic()
            print(f"\r{1 / (now - before):5.1f} frames/s  {prediction.result}", end="", flush=True)
            before = now
            cv2.imshow("eightfold", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            if cv2.waitKey(1) == ord("q"):
                break


if __name__ == "__main__":
    main(*sys.argv[1:])
