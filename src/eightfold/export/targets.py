"""INT8 rules of each target, as data. Every entry names its source, or the measurement behind it. TensorRT has an entry
for each version from which on the rules differ; a version between two entries has the rules of the older one."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, replace
from typing import Literal

from eightfold.errors import UnknownNameError, UsageError
from eightfold.export.target_names import FAMILIES, parse_target

# onnxruntime runs these on integers when their inputs and outputs are quantized (its QDQ selectors).
_ORT_OPS = frozenset(
    {"Conv", "Gemm", "MatMul", "Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat", "LeakyRelu", "Sigmoid"}
)
_OPENVINO_OPS = _ORT_OPS | {"ConvTranspose"}
_TENSORRT_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "AveragePool", "GlobalAveragePool"})


@dataclass(frozen=True)
class Target:
    """The form of INT8 that a target wants.

    Args:
        activation: type of quantized activations.
        symmetric: zero points are 0.
        placement: "tensors" puts one Q/DQ pair behind every quantized tensor, for all its readers; "inputs" puts it in
            front of the inputs of quantized operators only, so that what follows an operator can be fused into it.
        weights: "int8" stores them quantized, before a DequantizeLinear; "float-qdq" keeps them in float behind a Q/DQ
            pair, for parsers that do not take integer constants.
        integer_bias: biases are int32 at the scale of the product; else they stay float.
        operators: what may be quantized.
        least_channels: convolutions of fewer input channels get channels of zeros up to this number.
        weight_levels: the largest magnitude of a quantized weight.
        qoperator: also reads onnxruntime's QLinear operators.
        opset: the newest ONNX opset that it reads; those of TensorRT's versions are in `export/opset/opsets.py`.
        source: where these rules are written down or were measured; URLs, separated by spaces, behind what they say.
        refusal: where the target reads no Q/DQ graph at all, what to do instead.
    """

    name: str
    activation: Literal["uint8", "int8"]
    symmetric: bool
    placement: Literal["tensors", "inputs"]
    weights: Literal["int8", "float-qdq"]
    integer_bias: bool
    operators: frozenset[str]
    source: str
    per_channel: bool = True
    least_channels: int = 1
    weight_levels: int = 127
    qoperator: bool = False
    opset: int = 17
    refusal: str = ""


_TENSORRT_DOCS = "https://docs.nvidia.com/deeplearning/tensorrt"
_PARSER = "https://github.com/onnx/onnx-tensorrt/blob"
_PLACEMENT = (
    "symmetric signed INT8 only, per-channel weights; Q/DQ in front of convolutions and matrix products and of the "
    "residual input of an addition, not behind them: "
    f"{_TENSORRT_DOCS}/latest/inference-library/quantized-types-explicit-quantization.html"
)

_TENSORRT_8 = Target(
    name="tensorrt:8",
    activation="int8",
    symmetric=True,
    placement="inputs",
    weights="float-qdq",
    integer_bias=False,
    operators=_TENSORRT_OPS,
    source=f"{_PLACEMENT} ; float weights behind a Q/DQ pair ('AddQDQPairToWeight'): "
    "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html ; zero points stated, of value 0, "
    f"never uint8 (QuantDequantLinearHelper): {_PARSER}/release/8.2-GA/builtin_op_importers.cpp "
    f"{_PARSER}/release/8.6-GA/builtin_op_importers.cpp",
)
_TENSORRT_10 = replace(
    _TENSORRT_8,
    name="tensorrt:10",
    weights="int8",
    source=f"{_PLACEMENT} ; weights may be stored as int8 before an IDequantizeLayer: same page, 'Quantized Weights'; "
    f"zero points must be 0: {_PARSER}/release/10.0-GA/docs/operators.md",
)
_TENSORRT_11 = replace(
    _TENSORRT_10,
    name="tensorrt:11",
    source=f"{_TENSORRT_10.source} ; strongly typed only, no calibrators: Q/DQ is the one way to INT8: "
    f"{_TENSORRT_DOCS}/11.4.1/api/migration/tensorrt-10x-to-11x-trtexec.html ; this form was parsed and built by "
    "TensorRT-RTX in the tests",
)
_DLA_LAYERS = (
    "INT8 convolution, deconvolution, pooling and element-wise sum, matrix products only as 1x1 convolutions; one "
    f"scale per tensor: {_TENSORRT_DOCS}/latest/inference-library/dla-layer-restrictions.html"
)
_DLA = replace(
    _TENSORRT_11,
    name="tensorrt-dla",
    operators=_TENSORRT_OPS - {"MatMul"},
    per_channel=False,
    source=f"{_DLA_LAYERS} ; tensor types decide the precision, so Q/DQ does: "
    f"{_TENSORRT_DOCS}/11.3.0/inference-library/dla-strongly-typed-networks.html",
)
_DLA_8 = replace(
    _DLA,
    name="tensorrt-dla:8",
    source=f"{_DLA_LAYERS} ; DLA takes no explicit quantization there: "
    "https://developer.nvidia.cn/blog/tensorrt-deep-learning-accelerator-cn",
    refusal="build the float graph with the ranges instead: BuildOptions(ranges=...) or a calibration cache",
)

TARGETS = {
    target.name: target
    for target in (
        Target(
            name="cpu-x86",
            activation="uint8",
            symmetric=False,
            placement="tensors",
            weights="int8",
            integer_bias=True,
            operators=_ORT_OPS,
            least_channels=4,
            qoperator=True,
            source="U8S8 runs on AVX2, AVX-512 and VNNI: "
            "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html ; measured on AVX-512 VNNI: "
            "signed activations take 4 times as long as unsigned ones; a first convolution of 3 channels up to 1.8 "
            "times as long as one of 4",
        ),
        Target(
            name="cpu-arm",
            activation="int8",
            symmetric=False,
            placement="tensors",
            weights="int8",
            integer_bias=True,
            operators=_ORT_OPS,
            qoperator=True,
            source="S8S8 on ARM64, whose kernels are signed: "
            "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html",
        ),
        Target(
            name="openvino",
            activation="uint8",
            symmetric=False,
            placement="tensors",
            weights="int8",
            integer_bias=False,
            operators=_OPENVINO_OPS,
            source="asymmetric unsigned activations, symmetric signed per-channel weights: "
            "https://docs.openvino.ai/2024/documentation/openvino-extensibility/openvino-plugin-library/"
            "advanced-guides/low-precision-transformations.html ; measured: reads Q/DQ, refuses com.microsoft ones",
        ),
        _TENSORRT_8,
        _TENSORRT_10,
        _TENSORRT_11,
        _DLA,
        _DLA_8,
    )
}


def register_target(target: Target) -> None:
    """Make a target known to export, quantize, recipes and bundles. A name that is taken is refused.

    What runs its artifacts is a back end whose `targets` has its name; a target "cpu-MACHINE" is that of processors of
    this machine type, as `platform.machine()` names it.
    """
    if target.name in TARGETS:
        raise UsageError(f"the target {target.name!r} exists", allowed="a new name", remedy="choose another name")
    TARGETS[target.name] = target


def target_named(name: str | Target) -> Target:
    """The entry for a target string: "cpu-x86", "tensorrt", "tensorrt:8.2", "rtx:sm86", ...; a Target is its own.

    "tensorrt" without a version is the one installed, or 10 where there is none.

    Raises:
        UnknownNameError: there is none.
        UsageError: the target reads no Q/DQ graphs, or has no engines.
    """
    found = name if isinstance(name, Target) else _entry(name)
    if found.refusal:
        raise UsageError(
            f"{name} reads no Q/DQ graph", allowed="tensorrt-dla of TensorRT 10 or newer", remedy=found.refusal
        )
    return found


def _entry(name: str) -> Target:
    if name.partition(":")[0] not in FAMILIES:
        if name not in TARGETS:
            raise _unknown(name)
        return TARGETS[name]
    engine = parse_target(name)
    if engine.family == "rtx":
        return TARGETS["tensorrt:11"]
    if engine.dla:
        return TARGETS["tensorrt-dla:8" if engine.version[:1] == (8,) else "tensorrt-dla"]
    return _tensorrt(engine.version or parse_target(f"tensorrt:{installed_tensorrt() or 10}").version)


def _tensorrt(version: tuple[int, ...]) -> Target:
    """The newest entry that is not newer than the version."""
    known = [int(key.partition(":")[2]) for key in TARGETS if key.startswith("tensorrt:")]
    return TARGETS[f"tensorrt:{max(entry for entry in known if entry <= version[0])}"]


def _unknown(name: str) -> UnknownNameError:
    return UnknownNameError.of("target", name, [*TARGETS, "tensorrt", "rtx:sm86"])


def installed_tensorrt() -> str:
    """Version of the TensorRT that is installed here; empty where there is none."""
    try:
        return importlib.metadata.version("tensorrt")
    except importlib.metadata.PackageNotFoundError:
        return ""
