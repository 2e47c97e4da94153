"""The functions that take a torch module or an ONNX file tell the two apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from eightfold.compress.front import inspect_model, plan_pruning, prune
from eightfold.errors import UsageError


@pytest.mark.parametrize("function", [inspect_model, plan_pruning, prune])
def test_a_module_needs_example_inputs(function: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="no example inputs for a torch module; allowed: a tensor"):
        function(nn.Conv2d(3, 16, 1))
