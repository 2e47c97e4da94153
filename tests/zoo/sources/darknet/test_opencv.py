"""What the Darknet of 2018 lacks, against OpenCV 4's importer, which OpenCV 5 no longer has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.masked_reference import random_plan

from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.compress.trace.trace import trace
from eightfold.zoo.sources.darknet.network import DarknetNetwork
from eightfold.zoo.sources.darknet.write import write_pair
from tests.zoo.sources.darknet.networks import NET, network_of

# `make` installs it there: beside the OpenCV of the environment it cannot be.
OPENCV = Path(sys.prefix, "opencv4")
pytestmark = pytest.mark.skipif(not OPENCV.is_dir(), reason="needs OpenCV 4 in .venv/opencv4")

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import cv2, numpy
network = cv2.dnn.readNetFromDarknet(sys.argv[2], sys.argv[3])
network.setInput(numpy.load(sys.argv[4]))
numpy.save(sys.argv[5], network.forward())
"""
CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize={}\nstride={}\npad=1\nactivation={}\n"
STEM = NET + CONV.format(32, 3, 2, "mish")
LAST = "[convolutional]\nfilters=9\nsize=1\nstride=1\npad=1\nactivation=linear\n"
NETWORKS = {
    "squeeze-excite": STEM
    + "[avgpool]\n[convolutional]\nfilters=16\nsize=1\nstride=1\nactivation=swish\n"
    + "[convolutional]\nfilters=32\nsize=1\nstride=1\nactivation=logistic\n[scale_channels]\nfrom=-4\n",
    # The stage of YOLOv4-tiny: the second half of the channels goes on, both halves meet again.
    "half routes": STEM
    + CONV.format(32, 3, 1, "leaky")
    + "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n"
    + CONV.format(16, 3, 1, "leaky")
    + CONV.format(16, 3, 1, "swish")
    + "[route]\nlayers=-1,-2\n"
    + CONV.format(32, 1, 1, "mish")
    + "[route]\nlayers=-6,-1\n[maxpool]\nsize=2\nstride=2\n",
    # Depthwise as the fork writes it, in an inverted residual block.
    "inverted residual": STEM
    + CONV.format(64, 1, 1, "mish")
    + CONV.format(64, 3, 1, "mish").replace("size", "groups=64\nsize")
    + CONV.format(32, 1, 1, "linear")
    + "[shortcut]\nfrom=-4\nactivation=linear\n",
}


def assert_as_opencv(network: DarknetNetwork, folder: Path) -> None:
    cfg, weights = write_pair(network, folder / "net")
    image = torch.rand(1, *network.size, generator=torch.Generator().manual_seed(3))
    np.save(folder / "in.npy", image.numpy())
    files = [str(each) for each in (OPENCV, cfg, weights, folder / "in.npy", folder / "out.npy")]
    subprocess.run([sys.executable, "-c", PROGRAM, *files], check=True, timeout=60)
    with torch.no_grad():
        given = network(image)
    assert isinstance(given, torch.Tensor)
    np.testing.assert_allclose(given.numpy(), np.load(folder / "out.npy"), rtol=0, atol=1e-4)


@pytest.mark.parametrize("pruned", [False, True], ids=["original", "pruned"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_fork_s_layers_answer_as_opencv(name: str, pruned: bool, tmp_path: Path) -> None:
    network = network_of(NETWORKS[name] + LAST)
    if pruned:
        report = apply_plan_to_module(network, random_plan(trace(network, torch.rand(1, 3, 32, 32))))
        assert report.parameters_after < 0.8 * report.parameters_before
    assert_as_opencv(network, tmp_path)
