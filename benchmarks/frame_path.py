"""A frame's way in an application: from a camera's 1080p picture to drawn boxes, beside what people run today.

    python benchmarks/frame_path.py [--work FOLDER] [--threads 2] [--seconds 20]

The network is the YOLOv8n that the package nudenet ships, at 192x320, as ultralytics' own ONNX export left it; the
frame is a photograph of scikit-image at 1920x1080. Sides take turns in one run: `ef.Predictor` with FP32 and INT8, and
`draw`; `ultralytics` predict() on the shipped file, and plot(); OpenVINO's model API, where `openvino-model-api` is
installed, on our FP32 and INT8 files, with boxes drawn by OpenCV. All have the same number of threads and draw boxes
above 0.25. The INT8 file is calibrated on crops of photographs.
Needs nudenet, scikit-image, ultralytics. The table is written to benchmarks/results/frame_path.md.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from recovery_cases import PHOTOGRAPHS, _shipped

import eightfold as ef
from eightfold.calib.images.decode import read_image
from eightfold.calib.images.preprocess import Preprocess
from eightfold.export.bundle.write import onnx_artifact, write_bundle
from eightfold.files import write_text
from eightfold.runtime.bench.interleave import Schedule, alternate
from eightfold.runtime.bench.timing import speedup
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.devices.devices import describe_device
from eightfold.runtime.predict.draw import draw
from eightfold.text_table import text_table

RESULT = Path(__file__).parent / "results" / "frame_path.md"
SIZE = (192, 320)  # for 16:9; ultralytics takes it by itself where the file's axes are dynamic
PREPROCESS = Preprocess(height=SIZE[0], width=SIZE[1], resize="letterbox")
THRESHOLD, IOU = 0.25, 0.7
Pixels = NDArray[np.uint8]
Side = Callable[[], int]  # draws the boxes of a frame, and tells how many


def frame() -> Pixels:
    """(1080, 1920, 3) in OpenCV's order, as a camera gives it."""
    picture = read_image(_shipped("skimage/data/astronaut.png"))
    return np.ascontiguousarray(cv2.resize(picture, (1920, 1080), interpolation=cv2.INTER_CUBIC)[..., ::-1])


def fixed_files(work: Path) -> dict[str, Path]:
    """The network at its size, in FP32 and INT8."""
    work.mkdir(parents=True, exist_ok=True)
    files = {"FP32": work / "fp32.onnx", "INT8": work / "int8.onnx", "openvino": work / "openvino.onnx"}
    if not files["INT8"].is_file():
        ef.freeze_onnx(_shipped("nudenet/320n.onnx"), files["FP32"], batch=1, image_size=SIZE)
        ef.simplify(files["FP32"])
        ranges = ef.calibrate(files["FP32"], iter(crops()), PREPROCESS)
        ef.quantize(files["FP32"], ranges, files["openvino"], target="openvino")
        ef.quantize(files["FP32"], ranges, files["INT8"], target="cpu-x86")
    return files


def crops() -> list[Pixels]:
    """Crops of photographs in the frame's proportions, to calibrate with."""
    random, found = np.random.default_rng(0), []
    for name in PHOTOGRAPHS * 8:
        picture = read_image(_shipped(name))
        width = int(random.integers(160, min(picture.shape[1], picture.shape[0] * 16 // 9)))
        height = width * 9 // 16
        top, left = (int(random.integers(0, each)) for each in (picture.shape[0] - height, picture.shape[1] - width))
        found.append(np.ascontiguousarray(picture[top : top + height, left : left + width]))
    return found


def ours(files: dict[str, Path], picture: Pixels, threads: int) -> dict[str, Side]:
    """Predictor and `draw`; the camera's colours are turned as `predict_sources` does."""
    found: dict[str, Side] = {}
    for precision in ("FP32", "INT8"):
        file = files[precision]
        predictor = ef.Predictor(_bundle(file, precision), backend="onnxruntime", threads=threads)

        def side(predictor: ef.Predictor = predictor) -> int:
            pixels = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
            result: Any = predictor.predict(pixels)
            draw(pixels, result)
            return len(result.boxes)

        found[f"eightfold, {precision}"] = side
    return found


def _bundle(file: Path, precision: str) -> Path:
    task = Task(kind="detect", decode="yolo-boxes", options={"score_threshold": THRESHOLD, "iou_threshold": IOU})
    folder = file.with_suffix("")
    artifact = onnx_artifact(file, id=precision, inside="model.onnx", variant="baseline")
    return write_bundle(
        folder, name="frame", task=task, preprocess=PREPROCESS, artifacts=[artifact], files={"model.onnx": file}
    )


def of_ultralytics(picture: Pixels) -> dict[str, Side]:
    """Its predict() on the file as shipped, and plot()."""
    from ultralytics import YOLO

    model = YOLO(str(_shipped("nudenet/320n.onnx")), task="detect")

    def side() -> int:
        (result,) = model.predict(picture, imgsz=max(SIZE), conf=THRESHOLD, iou=IOU, device="cpu", verbose=False)
        result.plot()
        return len(result.boxes)

    return {"ultralytics predict(), FP32": side}


def of_model_api(files: dict[str, Path], picture: Pixels, threads: int) -> dict[str, Side]:
    """OpenVINO's model API, with boxes drawn by OpenCV as its own demos do; none where it is not installed."""
    try:
        from model_api.models.yolo import YOLOv8
    except ImportError:
        return {}
    found: dict[str, Side] = {}
    for precision, file in (("FP32", files["FP32"]), ("INT8", files["openvino"])):
        settings = {"confidence_threshold": THRESHOLD, "iou_threshold": IOU, "resize_type": "fit_to_window_letterbox"}
        model = YOLOv8.create_model(
            str(file), model_type="YOLOv8", configuration=settings, device="CPU", nthreads=threads, max_num_requests=1
        )

        def side(model: Any = model) -> int:
            result = model(picture)
            shown = picture.copy()
            for left, top, right, bottom in result.bboxes:
                cv2.rectangle(shown, (int(left), int(top)), (int(right), int(bottom)), (0, 255, 0), 2)
            return len(result.bboxes)

        found[f"OpenVINO model API, {precision}"] = side
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/frame_path"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each side")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    cv2.setNumThreads(options.threads)
    files, picture = fixed_files(options.work), frame()
    sides = {
        **ours(files, picture, options.threads),
        **of_ultralytics(picture),
        **of_model_api(files, picture, options.threads),
    }
    boxes = {name: side() for name, side in sides.items()}
    samples = alternate(sides, Schedule(seconds=options.seconds, rounds=20))
    peer = samples["ultralytics predict(), FP32"].times_s
    rows = []
    for name, timed in samples.items():
        ratio = speedup(peer, timed.times_s)
        middle, high = (1e3 * float(np.nanpercentile(timed.times_s, share)) for share in (50, 90))
        rows.append(
            [name, f"{middle:.2f}", f"{high:.2f}", f"{1e3 / middle:.0f}", f"{ratio.value:.2f}x", str(boxes[name])]
        )
    head = ["way", "p50 ms", "p90 ms", "frames/s", "beside ultralytics", "boxes"]
    lines = [f"{describe_device().line()}; threads: {options.threads}", "", *text_table([head, *rows], left={0})]
    write_text(RESULT, "# A frame's way\n\n`python benchmarks/frame_path.py`\n\n```\n" + "\n".join(lines) + "\n```\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
