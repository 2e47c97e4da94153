"""Damage that INT8 does to a network, layer by layer, in the unit of channel scores: the logarithm of the share of an
output's energy that is signal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from eightfold.calib.calibrate import calibrate
from eightfold.calib.images.image_set import ImageWarning
from eightfold.compress.latency.whole_network import WholeNetwork
from eightfold.compress.plan.latency.widths import NetworkLayer
from eightfold.compress.types import Args
from eightfold.errors import UsageError
from eightfold.export.int8.float_layers import weighted_labels
from eightfold.export.int8.layer_errors import output_sqnr_db
from eightfold.export.int8.qdq import apply_qdq
from eightfold.export.int8.qdq_plan import FloatRules, plan_qdq
from eightfold.export.targets import target_named
from eightfold.onnx_graph.fold import prepare_for_int8
from eightfold.onnx_graph.graph import ModelGraph, read_graph
from eightfold.progress import track
from eightfold.scratch import scratch_folder

IMAGES = 16
WEIGHTED = frozenset({"conv", "conv_transpose", "depthwise", "linear"})


@dataclass(frozen=True)
class Damage:
    """Cost of INT8 by layer.

    Attributes:
        values: layer -> change of importance where it alone is INT8; not positive.
        places: layer -> its place among the layers with weights.
        layers: number of layers with weights.
    """

    values: dict[str, float]
    places: dict[str, int]
    layers: int


def int8_damage(network: WholeNetwork, layers: Sequence[NetworkLayer], batches: Sequence[Args]) -> Damage:
    """Measure each layer alone in INT8 against the float network, on some images.

    Args:
        layers: of the network, in execution order.
        batches: images, as positional arguments of calls.

    Raises:
        UsageError: no images, or the exported graph has other layers than the network.
    """
    import warnings

    rows = _rows(batches)
    if not rows:
        raise UsageError("precisions to be chosen, and no images to measure the damage on", allowed="images (--images)")
    weighted = [layer.name for layer in layers if layer.shape.kind in WEIGHTED]
    with scratch_folder() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageWarning)
        path = network.float_file(folder / "float.onnx")
        labels = weighted_labels(path)
        if len(labels) != len(weighted):
            raise UsageError(
                f"precisions to be chosen for a network of {len(weighted)} layers with weights, whose graph has "
                f"{len(labels)}",
                allowed="networks whose graph has the same layers; precision int8 or fp32 for others",
            )
        found = _alone(path, rows, network.settings.target, folder)
    once = {name for name in weighted if weighted.count(name) == 1}
    places = {name: place for place, name in enumerate(weighted) if name in once and labels[place] in found}
    return Damage({name: found[labels[place]] for name, place in places.items()}, places, len(weighted))


def damage_of(sqnr_db: float) -> float:
    """Logarithm of the share of the energy that is signal.

    >>> round(damage_of(0.0), 3), round(damage_of(30.0), 3)
    (-0.693, -0.001)
    """
    return -float(np.log1p(10 ** (-sqnr_db / 10)))


def _alone(path: Path, rows: Sequence[Any], target: str, folder: Path) -> dict[str, float]:
    """Label of each layer that can be INT8 -> its damage."""
    graph = read_graph(path)
    ranges = calibrate(path, rows, None)
    prepared, rules = ModelGraph(prepare_for_int8(graph), graph.name), target_named(target)
    quantized = folder / "alone.onnx"
    found = {}
    for name in track(plan_qdq(prepared, ranges, rules).quantized, "measuring INT8 damage"):
        only = FloatRules(only=frozenset({name}))
        quantized.write_bytes(apply_qdq(prepared, plan_qdq(prepared, ranges, rules, only)).SerializeToString())
        found[name] = damage_of(output_sqnr_db(path, quantized, rows, None))
    return found


def _rows(batches: Iterable[Args]) -> list[Any]:
    rows: list[Any] = []
    for args in batches:
        if len(args) != 1 or not isinstance(args[0], Tensor):
            raise UsageError("precisions to be chosen for a network of several inputs", allowed="one image input")
        rows += list(args[0].detach().cpu().float().numpy())
        if len(rows) >= IMAGES:
            break
    return rows[:IMAGES]
