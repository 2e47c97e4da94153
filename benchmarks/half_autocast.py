"""Our float16 graphs against those of ModelOpt's AutoCast: how near to float32, on photographs that neither has seen.

Usage: python benchmarks/half_autocast.py [NAME ...]
Needs, beside what round_trip.py needs (installed without what they depend on):
    pip install --no-deps nvidia-modelopt onnx_graphsurgeon polygraphy nvidia-ml-py lief

Both calibrate on the same photograph with default settings and are judged by the same emulation, in which every float16
tensor is really rounded.
"""

from __future__ import annotations

import argparse
import logging
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from modelopt.onnx.autocast import convert_to_mixed_precision
from round_trip import NETWORKS, build, photographs_at, settle

from eightfold.export.fp16.fp16 import checked_fp16
from eightfold.export.fp16.fp16_emulation import verify_fp16
from eightfold.export.simplify.simplify import simplify
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.export.verify.verify import Tolerance
from eightfold.onnx_graph.onnx_files import load_onnx

RESULT = Path(__file__).parent / "results" / "half_autocast.md"
CHOSEN = ("mobilenet_v2", "shufflenet_v2_x1_0")


def row(name: str, folder: Path) -> str:
    size = NETWORKS[name]
    images = photographs_at(size)
    network = settle(build(name), images[0::2])
    graph = simplify(export_onnx(network, folder / "net.onnx", batch=1, image_size=size))
    np.savez(folder / "images.npz", images=images[:1])
    unseen = [{"images": image[None]} for image in images[1::2][:4]]
    start = time.process_time()
    ours = checked_fp16(graph, inputs={"images": images[:1]}).model
    middle = time.process_time()
    theirs = convert_to_mixed_precision(str(graph), calibration_data=str(folder / "images.npz"), keep_io_types=True)
    end = time.process_time()
    cosines = [
        verify_fp16(load_onnx(graph), made, {"held-out": unseen}, tolerance=Tolerance()).cosine
        for made in (ours, theirs)
    ]
    return f"| {name} | {cosines[0]:.6f} | {cosines[1]:.6f} | {middle - start:.1f} | {end - middle:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(CHOSEN))
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(name, Path(folder)) for name in parser.parse_args().names]
    machine = f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    head = ["| network | cosine | AutoCast's | CPU s | AutoCast's |", "|---|---|---|---|---|"]
    text = "\n".join(["# Float16 graphs against AutoCast's", "", machine, "", *head, *rows])
    print(text)
    RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()
