"""What each target wants of a quantized graph, as data. Every entry names its source."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from eightfold.errors import UnknownNameError

# onnxruntime runs these on integers when their inputs and outputs are quantized (its QDQ selectors).
_ORT_OPS = frozenset(
    {"Conv", "Gemm", "MatMul", "Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat", "LeakyRelu", "Sigmoid"}
)
_OPENVINO_OPS = _ORT_OPS | {"ConvTranspose"}
_TENSORRT_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "AveragePool", "GlobalAveragePool"})


@dataclass(frozen=True)
class Target:
    """How a target wants its INT8.

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
        qoperator: also reads onnxruntime's QLinear operators.
        source: where these rules are written down or were measured.
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
    qoperator: bool = False


_TENSORRT = Target(
    name="tensorrt:10",
    activation="int8",
    symmetric=True,
    placement="inputs",
    weights="int8",
    integer_bias=False,
    operators=_TENSORRT_OPS,
    source="TensorRT developer guide, 'Working with quantized types': symmetric signed INT8 only, per-channel weights, "
    "Q/DQ placement recommendations: quantize the inputs of convolutions and matrix products, the residual input of "
    "an addition, and not the outputs",
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
            source="onnxruntime documentation, 'Quantize ONNX models': U8S8 runs on AVX2, AVX-512 and VNNI; signed "
            "activations were measured 4 times slower on AVX-512 VNNI",
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
            source="onnxruntime documentation, 'Quantize ONNX models': S8S8 on ARM64, where kernels are signed",
        ),
        Target(
            name="openvino",
            activation="uint8",
            symmetric=False,
            placement="tensors",
            weights="int8",
            integer_bias=False,
            operators=_OPENVINO_OPS,
            source="OpenVINO documentation, 'Quantization scheme': asymmetric unsigned activations, symmetric signed "
            "per-channel weights; reads Q/DQ, refuses onnxruntime's QOperator operators",
        ),
        _TENSORRT,
        replace(_TENSORRT, name="tensorrt:11", source=_TENSORRT.source + "; 11 reads Q/DQ only, calibrators are gone"),
        replace(
            _TENSORRT,
            name="tensorrt:8",
            weights="float-qdq",
            source=_TENSORRT.source + "; onnxruntime documentation, 'AddQDQPairToWeight': the parser of TensorRT 8 "
            "wants float weights behind a Q/DQ pair",
        ),
        replace(
            _TENSORRT,
            name="tensorrt-dla",
            operators=_TENSORRT_OPS - {"MatMul"},
            per_channel=False,
            source="TensorRT developer guide, 'Working with DLA': INT8 convolution, deconvolution, pooling and "
            "element-wise sum; matrix products only as 1x1 convolutions",
        ),
    )
}


def target_named(name: str | Target) -> Target:
    """The entry for a target string: "cpu-x86", "tensorrt", "tensorrt:8.2", "rtx:sm86", ...; a Target is its own.

    Raises:
        UnknownNameError: there is none.
    """
    if isinstance(name, Target):
        return name
    family, _, version = name.partition(":")
    if family == "rtx":
        return TARGETS["tensorrt:11"]
    if family == "tensorrt":
        major = version.partition(".")[0] or "10"
        if f"tensorrt:{major}" in TARGETS:
            return TARGETS[f"tensorrt:{major}"]
    if name not in TARGETS:
        raise UnknownNameError.of("target", name, [*TARGETS, "tensorrt", "rtx:sm86"])
    return TARGETS[name]
