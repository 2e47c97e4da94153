"""Show what a bundle sees in a camera: python camera.py BUNDLE [NUMBER OF THE CAMERA]. The same in C++: camera.cpp."""

from __future__ import annotations

import sys
from typing import Any

import cv2
import numpy as np

import eightfold as ef

GREEN = (0, 255, 0)


def draw(frame: np.ndarray, answer: Any) -> None:
    if hasattr(answer, "boxes"):
        for box, label in zip(answer.boxes.astype(int), answer.labels, strict=True):
            x1, y1, x2, y2 = box.tolist()
            cv2.rectangle(frame, (x1, y1), (x2, y2), GREEN, 2)
            cv2.putText(frame, label, (x1, y1), cv2.FONT_HERSHEY_SIMPLEX, 0.6, GREEN, 2)
    else:
        cv2.putText(frame, str(answer), (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 1, GREEN, 2)


def main(bundle: str, number: int = 0) -> None:
    camera = cv2.VideoCapture(number)
    with ef.Predictor(bundle) as predictor:
        predictor.warmup()
        while cv2.waitKey(1) != ord("q"):
            there, frame = camera.read()
            if not there:
                break
            draw(frame, predictor.predict(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)))
            cv2.imshow("eightfold", frame)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
