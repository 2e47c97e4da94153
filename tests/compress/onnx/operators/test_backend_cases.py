"""Every operator against the ONNX project's backend tests: models with inputs and expected outputs."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx.backend.test import loader

from eightfold.compress.onnx.build import build_module
from eightfold.compress.onnx.operators import OPERATORS
from eightfold.errors import EightfoldError
from eightfold.onnx_graph.canonicalize import canonicalized

# Enough for the forms of an operator; benchmarks/onnx_executor.py runs all.
MOST_OF_ONE = 5
# The reference takes the unrounded length where onnxruntime, as torch, takes that of the output.
OTHER_REFERENCE = ("align_corners", "antialias", "bernoulli")

T = onnx.TensorProto
TYPES = {T.FLOAT, T.DOUBLE, T.UINT8, T.INT8, T.INT32, T.INT64, T.BOOL, T.FLOAT16}


def _array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


@functools.cache  # the ONNX project computes all of them when it is asked for one, which takes seconds
def _all_cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, on overflows that some tests are about
        return list(loader.load_model_tests(kind="node"))


@functools.cache
def _cases() -> dict[str, list[Any]]:
    """Some of each operator."""
    chosen: dict[str, list[Any]] = {}
    for test in _all_cases():
        nodes = test.model.graph.node if test.model else []
        op = nodes[0].op_type if len(nodes) == 1 else ""
        types = {value.type.tensor_type.elem_type for value in (test.model.graph.input if test.model else [])}
        wanted = op in OPERATORS and types <= TYPES and not any(word in test.name for word in OTHER_REFERENCE)
        if wanted and len(chosen.setdefault(op, [])) < MOST_OF_ONE:
            chosen[op].append(test)
    return chosen


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_gives_what_the_standard_expects(operator: str) -> None:
    refused = [_reason_for_refusal(case) for case in _cases().get(operator, [])]
    if all(refused):
        pytest.skip("; ".join(reason for reason in refused if reason) or "no case of this operator alone")


def _reason_for_refusal(case: Any) -> str:
    """Run a case and compare what it gives; why it cannot be run, "" where it could."""
    inputs, expected = case.data_sets[0]
    arrays = [_array(value) for value in inputs]
    if not all(isinstance(array, np.ndarray) and array.dtype.kind in "fiub" for array in arrays):
        return "inputs that torch has no type for"
    model = canonicalized(case.model)
    names = [value.name for value in model.graph.input]
    try:
        module = build_module(model, Path())
        with torch.no_grad():
            seen = module(**{n: torch.from_numpy(a.copy()) for n, a in zip(names, arrays, strict=True)})
    except EightfoldError as error:
        return str(error)
    outputs = seen if isinstance(seen, tuple) else (seen,)
    for tensor, known in zip(outputs, map(_array, expected), strict=True):
        assert tensor.shape == known.shape, case.name
        np.testing.assert_allclose(tensor.numpy(), known, rtol=case.rtol, atol=max(case.atol, 1e-6), err_msg=case.name)
    return ""


def test_every_operator_has_a_case_that_is_run() -> None:
    """No operator is registered whose function nobody ever called."""
    tried = {node.op_type for test in _all_cases() if test.model for node in test.model.graph.node}
    random = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"}
    assert set(OPERATORS) - tried - random == {"GlobalLpPool"}
