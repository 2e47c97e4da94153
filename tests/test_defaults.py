"""One call has the same defaults in the Python API, in recipes and on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

import eightfold as ef
from eightfold.cli.calib.calibrate import calibrate as calibrate_command
from eightfold.cli.compress.prune import prune as prune_command
from eightfold.cli.export.quantize import quantize as quantize_command
from eightfold.compress.plan_pruning import plan_module
from eightfold.recipe_deployment import CalibrateSection, QuantizeSection
from eightfold.recipe_sections import CompressSection


def defaults_of(source: Callable[..., Any] | type[BaseModel]) -> dict[str, Any]:
    if isinstance(source, type) and issubclass(source, BaseModel):
        return {name: field.default for name, field in source.model_fields.items()}
    return {name: parameter.default for name, parameter in inspect.signature(source).parameters.items()}


# What each option is called in the API, in a recipe's section and on the command line; None where it is not there.
Names = tuple[str | None, str | None, str | None]
CALIBRATION: list[Names] = [
    ("method", "method", "method"),
    ("percentile", None, "percentile"),
    ("batch", None, "batch"),
    (None, "images", "count"),
]
PRUNING: list[Names] = [
    ("rule", "rule", "rule"),
    ("score", "score", "score"),
    ("keep_ratio", "keep_ratio", "keep"),
    ("multiple", "multiple", "multiple"),
    ("layer_norms", "layer_norms", "layer_norms"),
    (None, "compensate_images", "count"),
]
QUANTIZATION: list[Names] = [
    ("form", "form", "form"),
    ("rounding", "rounding", "rounding"),
    ("bias_correction", "bias_correction", "bias_correction"),
]


def agreeing(api: Callable[..., Any], section: type[BaseModel], command: Callable[..., Any], names: Names) -> None:
    sources: tuple[Callable[..., Any] | type[BaseModel], ...] = (api, section, command)
    found = [defaults_of(source)[name] for source, name in zip(sources, names, strict=True) if name is not None]
    assert len(found) > 1
    assert all(value == found[0] for value in found), (names, found)


@pytest.mark.parametrize("names", CALIBRATION)
def test_calibration(names: Names) -> None:
    agreeing(ef.calibrate, CalibrateSection, calibrate_command, names)


@pytest.mark.parametrize("names", PRUNING)
def test_pruning(names: Names) -> None:
    agreeing(plan_module, CompressSection, prune_command, names)


@pytest.mark.parametrize("names", QUANTIZATION)
def test_quantization(names: Names) -> None:
    agreeing(ef.quantize, QuantizeSection, quantize_command, names)


def test_the_target_of_a_recipe_is_that_of_the_call() -> None:
    assert defaults_of(QuantizeSection)["targets"] == (defaults_of(ef.quantize)["target"],)
    assert defaults_of(quantize_command)["target"] == defaults_of(ef.quantize)["target"]
