"""Finds the nodes that cost a 16-bit graph its precision, by measurement.

Rounding errors of different places hardly correlate: what they do to the answer adds up in its square, which is what
1 - cosine measures. So each stretch of the graph is run in 16 bits alone, and the ones that cost most stay in float32
until what is left is within the bound. Deep networks amplify early errors: it is often the first few layers that count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from eightfold.arrays import Array, Arrays
from eightfold.export.fp16.fp16_emulation import emulated_fp16
from eightfold.export.fp16.fp16_graph import HalfType, fp16_graph
from eightfold.export.verify.verify import Tolerance, compare_arrays, runner
from eightfold.progress import track

if TYPE_CHECKING:
    import onnx

STRETCHES = 16
PARTS_OF_A_STRETCH = 4
# Other images than these move the answer more or less far: room is left for them.
SHARE_OF_THE_BOUND = 0.5

Stretch = tuple[str, ...]


def search_fp16(
    model: onnx.ModelProto,
    runs: Sequence[Arrays],
    *,
    keep_float: Iterable[str],
    tolerance: Tolerance,
    kind: HalfType,
) -> list[str]:
    """Names of nodes that have to stay in float32, beside `keep_float`, for the cosine to be within the tolerance.

    Empty where nothing has to, or where the tolerance has no cosine. Some bounds cannot be met: then all are named.
    """
    if tolerance.cosine is None:
        return []
    kept = frozenset(keep_float)
    free = tuple(node.name for node in model.graph.node if node.name not in kept)
    trial = _Trial(model, [(inputs, run(inputs)) for run in [runner(model)] for inputs in runs], kind)
    limit = SHARE_OF_THE_BOUND * (1 - tolerance.cosine)
    if trial.error(free) <= limit:
        return []
    chosen = _within(trial, free, limit)
    return [name for name in free if name not in chosen]


@dataclasses.dataclass(frozen=True)
class _Trial:
    model: onnx.ModelProto
    answers: list[tuple[Arrays, dict[str, Array]]]
    kind: HalfType

    def error(self, half: Iterable[str]) -> float:
        """1 - the lowest cosine with the nodes named in 16 bits and all others in float32."""
        half = frozenset(half)
        keep = [node.name for node in self.model.graph.node if node.name not in half]
        made = emulated_fp16(fp16_graph(self.model, keep_float=keep, kind=self.kind), self.kind)
        run = runner(made)
        found = [item.cosine for inputs, known in self.answers for item in compare_arrays(known, run(inputs))]
        return 1 - min(found) if all(cosine == cosine for cosine in found) else float("inf")


def _within(trial: _Trial, free: Stretch, limit: float) -> frozenset[str]:
    """The nodes that may be in 16 bits."""
    coarse = _costs(trial, _split(free, STRETCHES))
    _, dear = _divided(coarse, limit)
    fine = _costs(trial, [part for stretch in dear for part in _split(stretch, PARTS_OF_A_STRETCH)])
    cheap, left = _divided({**{key: cost for key, cost in coarse.items() if key not in dear}, **fine}, limit)
    while cheap and trial.error(_names(cheap)) > limit:
        left.append(cheap.pop())
    # The sum of the costs may have been too high an estimate as well.
    for stretch in sorted(left, key=lambda each: {**coarse, **fine}[each]):
        if trial.error(_names([*cheap, stretch])) > limit:
            break
        cheap.append(stretch)
    return frozenset(_names(cheap))


def _names(stretches: Sequence[Stretch]) -> Iterator[str]:
    return (name for stretch in stretches for name in stretch)


def _costs(trial: _Trial, stretches: Sequence[Stretch]) -> dict[Stretch, float]:
    return {stretch: trial.error(stretch) for stretch in track(stretches, "finding what needs float32")}


def _divided(costs: dict[Stretch, float], limit: float) -> tuple[list[Stretch], list[Stretch]]:
    """Stretches that fit the limit together, cheapest first, and the others."""
    cheap, total = [], 0.0
    for stretch, cost in sorted(costs.items(), key=lambda item: item[1]):
        total += cost
        if total > limit:
            break
        cheap.append(stretch)
    return cheap, [stretch for stretch in costs if stretch not in cheap]


def _split(stretch: Stretch, count: int) -> list[Stretch]:
    size = -(-len(stretch) // count)
    return [stretch[start : start + size] for start in range(0, len(stretch), size)]
