"""Weights of 7 bits: never more than the 16-bit sums of two products hold, and taken where the processor needs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from eightfold.calib.calibrate import calibrate
from eightfold.errors import UsageError
from eightfold.export.int8 import weight_bits as subject
from eightfold.export.int8.int8 import quantize_weight
from eightfold.export.int8.quantize import quantize
from eightfold.export.int8.weight_bits import LEVELS, bits_of, checked_bits, products_overflow, with_weight_bits
from eightfold.export.targets import TARGETS
from eightfold.runtime.devices.device_cpu import Cpu
from eightfold.runtime.devices.devices import Device, describe_device

ModelMaker = Callable[..., Path]
AVX2 = Cpu(model="EPYC", architecture="x86_64", features=("avx2", "fma"))
VNNI = Cpu(model="Xeon", architecture="x86_64", features=("avx2", "avx512_vnni"))
UNKNOWN = Cpu(model="?", architecture="x86_64")
ARM = Cpu(model="A57", architecture="aarch64", features=("asimd",))


@pytest.fixture
def without_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    device: Device = describe_device().model_copy(update={"cpu": AVX2})
    monkeypatch.setattr(subject, "describe_device", lambda: device)


def largest(path: Path) -> int:
    """The largest magnitude of an int8 constant with more than one number."""
    weights = [onnx.numpy_helper.to_array(each) for each in onnx.load(str(path)).graph.initializer]
    return max(int(np.abs(each.astype(int)).max()) for each in weights if each.dtype == np.int8 and each.size > 1)


def test_two_products_fit_into_16_bits() -> None:
    assert 2 * 255 * LEVELS[7] <= np.iinfo(np.int16).max < 2 * 255 * LEVELS[8]


@pytest.mark.parametrize(("cpu", "overflow"), [(AVX2, True), (VNNI, False), (UNKNOWN, False), (ARM, False)])
def test_which_processors_overflow(cpu: Cpu, overflow: bool) -> None:
    assert products_overflow(cpu) is overflow


@pytest.mark.parametrize(
    ("target", "cpu", "bits"),
    [
        ("cpu-x86", AVX2, 7),
        ("openvino", AVX2, 7),
        ("cpu-x86", VNNI, 8),
        ("cpu-arm", AVX2, 8),
        ("tensorrt:11", AVX2, 8),
    ],
)
def test_what_a_target_gets_by_itself(target: str, cpu: Cpu, bits: int) -> None:
    assert bits_of(with_weight_bits(TARGETS[target], None, cpu)) == bits


def test_what_is_asked_for_is_done() -> None:
    assert bits_of(with_weight_bits(TARGETS["cpu-x86"], 8, AVX2)) == 8
    assert bits_of(with_weight_bits(TARGETS["cpu-arm"], 7, VNNI)) == 7
    with pytest.raises(UsageError, match="weights of 4 bits"):
        checked_bits(4)


def test_rounding_errors_stay_within_half_a_step() -> None:
    weight = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    found = quantize_weight(weight, 0, levels=LEVELS[7])
    assert np.abs(found.values.astype(int)).max(axis=1).tolist() == [64] * 5
    step = np.abs(weight).max(axis=1, keepdims=True) / 64
    assert (np.abs(found.real() - weight) <= step * 0.5001).all()


@pytest.mark.parametrize("options", [{}, {"rounding": "adaround"}, {"bias_correction": "analytic"}])
def test_no_weight_of_a_file_is_larger(
    residual_net: ModelMaker, rows: Any, tmp_path: Path, without_vnni: None, options: dict[str, Any]
) -> None:
    path = residual_net()
    ranges = calibrate(path, rows, None, method="minmax")
    output, report = quantize(path, ranges, tmp_path / "int8.onnx", form="qdq", images=rows, **options)
    assert largest(output) == 64
    assert report.weight_bits == 7
    assert "weights of 7 bits" in report.describe()


def test_other_machines_get_all_8_bits(residual_net: ModelMaker, rows: Any, tmp_path: Path, without_vnni: None) -> None:
    path = residual_net()
    ranges = calibrate(path, rows, None, method="minmax")
    for target, bits in (("cpu-x86", 8), ("cpu-arm", None), ("tensorrt:11", None)):
        output, report = quantize(
            path, ranges, tmp_path / "int8.onnx", form="qdq", target=target, weight_bits=bits, images=rows
        )
        assert largest(output) == 127
        assert report.weight_bits == 8
        assert "7 bits" not in report.describe()
