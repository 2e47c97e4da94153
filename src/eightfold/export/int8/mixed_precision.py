"""Selects the layers to keep in float so that INT8 loses no more than `max_drop`: ranks layers by damage, returns the
worst to float one after another, and reports the gain and cost of each step. Every score is kept in a file, so that an
interrupted search resumes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, get_args

from eightfold.calib.calibrate import DECIDING
from eightfold.calib.ranges import Ranges
from eightfold.errors import UsageError, one_of
from eightfold.export.int8.int8_speed import MEASURED_S, measure_int8, measures_target
from eightfold.export.int8.mixed_precision_report import SearchReport, SearchStep
from eightfold.export.int8.qdq import apply_qdq
from eightfold.export.int8.qdq_plan import FloatRules, plan_qdq
from eightfold.export.int8.score import Score
from eightfold.export.int8.units import units_of
from eightfold.export.int8.weight_bits import checked_bits, with_weight_bits
from eightfold.export.targets import Target, target_named
from eightfold.files import PathLike, sha256_of_bytes, write_bytes, write_text
from eightfold.onnx_graph.fold import prepare_for_int8
from eightfold.onnx_graph.graph import ModelGraph, read_graph
from eightfold.progress import track
from eightfold.runtime.bench.latency import device_identity
from eightfold.runtime.devices.devices import describe_device
from eightfold.scratch import scratch_folder
from eightfold.versions import identity_of

Ranking = Literal["quantize-one", "dequantize-one"]


@dataclass(frozen=True)
class SearchOptions:
    """Options of the search.

    Args:
        max_drop: how much lower than the float graph the score may be, in its own unit.
        ranking: "dequantize-one" measures what giving one layer back gains, "quantize-one" what one layer alone costs;
            a layer includes the functions of its values alone, such as its SiLU.
        step: layers to give back at a time.
        most_float: largest share of the layers to give back; one may go back in any case.
        measure: time each step against FP32, on targets that run here.
    """

    max_drop: float
    ranking: Ranking = "dequantize-one"
    step: int = 1
    most_float: float = 1.0
    measure: bool = True

    def __post_init__(self) -> None:
        one_of("ranking", self.ranking, get_args(Ranking))
        if self.max_drop < 0 or self.step < 1:
            raise UsageError(f"max_drop {self.max_drop}, step {self.step}", allowed="max_drop >= 0 and step >= 1")
        if not 0 <= self.most_float <= 1:
            raise UsageError(f"a share of {self.most_float:g} as most_float", allowed="0 to 1")


def quantize_within(
    onnx_path: PathLike,
    ranges: Ranges,
    output: PathLike,
    score: Score,
    options: SearchOptions,
    *,
    rank_by: Score | None = None,
    target: str = "cpu-x86",
    weight_bits: int | None = None,
    state: PathLike | None = None,
) -> tuple[Path, SearchReport]:
    """Write the INT8 form that keeps as few layers in float as the allowed drop needs.

    Args:
        onnx_path, ranges, output, target, weight_bits: as for `quantize`.
        score: what may drop; see `export.score`.
        options: how much, and how to search.
        rank_by: a cheaper score to rank layers by, such as `sqnr_score` on a few images; `score` by default.
        state: a JSON file that remembers scores, so that the same call goes on after an interrupt.

    Returns:
        The output's path, and every step. Where even the last step drops more than allowed, that step is written and
        the report says so.
    """
    graph = read_graph(onnx_path)
    ranges.check_graph(graph.digest(), str(onnx_path))
    rules = with_weight_bits(target_named(target), checked_bits(weight_bits))
    with scratch_folder() as folder:
        prepared = ModelGraph(prepare_for_int8(graph), graph.name)
        forms = _Forms(Path(onnx_path), prepared, ranges, rules, folder)
        memory = _Memory(None if state is None else Path(state), _identity(forms, target, score, rank_by))
        search = _Search(forms, memory, score, rank_by or score, options)
        report = search.run()
        write_bytes(output, forms.write(FloatRules(keep=frozenset(report.steps[-1].kept_float))).read_bytes())
    return Path(output), report


def _identity(forms: _Forms, target: str, score: Score, rank_by: Score | None) -> str:
    """The facts that two searches must share for one to use the other's scores."""
    ranked = rank_by.data if rank_by else ""
    device = str(device_identity(describe_device()))  # scores are kept beside times
    levels = str(forms.target.weight_levels)
    parts = (forms.ranges.digest(), target, levels, score.name, score.data, ranked, identity_of(DECIDING), device)
    return sha256_of_bytes(" ".join(parts).encode())


@dataclass(frozen=True, eq=False)
class _Forms:
    """Makes quantized forms of a graph."""

    source: Path
    graph: ModelGraph
    ranges: Ranges
    target: Target
    folder: Path

    @cached_property
    def units(self) -> dict[str, tuple[str, ...]]:
        """The first node of each unit of layers -> all of its nodes."""
        found = units_of(self.graph, plan_qdq(self.graph, self.ranges, self.target).quantized)
        return {unit[0]: unit for unit in found}

    def write(self, rules: FloatRules) -> Path:
        path = self.folder / "int8.onnx"
        model = apply_qdq(self.graph, plan_qdq(self.graph, self.ranges, self.target, rules))
        path.write_bytes(model.SerializeToString(deterministic=True))
        return path


@dataclass
class _Memory:
    """Numbers by key, in a file of one search. A file of another search is replaced."""

    path: Path | None
    identity: str
    numbers: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is not None and self.path.is_file():
            try:
                stored = json.loads(self.path.read_text())
            except ValueError:
                return
            if isinstance(stored, dict) and stored.get("identity") == self.identity:
                self.numbers = stored["numbers"]

    def get(self, key: str, measure: Callable[[], float]) -> float:
        if key not in self.numbers:
            self.numbers[key] = measure()
            if self.path is not None:
                write_text(self.path, json.dumps({"identity": self.identity, "numbers": self.numbers}, indent=1))
        return self.numbers[key]


@dataclass(frozen=True, eq=False)
class _Search:
    forms: _Forms
    memory: _Memory
    score: Score
    rank_by: Score
    options: SearchOptions

    def run(self) -> SearchReport:
        best = self._float_score(self.score)
        steps = [self._step(())]
        damage: dict[str, float] = {}
        if not self._within(best, steps[-1]):
            damage = self._damage()
            for kept in self._growing(list(damage)):
                steps.append(self._step(kept))
                if self._within(best, steps[-1]):
                    break
        return SearchReport(
            score_name=self.score.name,
            unit=self.score.unit,
            float_score=best,
            max_drop=self.options.max_drop,
            damage=damage,
            steps=tuple(steps),
            met=self._within(best, steps[-1]),
        )

    def _within(self, best: float, step: SearchStep) -> bool:
        return step.score >= best - self.options.max_drop

    def _float_score(self, score: Score) -> float:
        if score.perfect is not None:
            return score.perfect
        return self.memory.get(f"{score.name} float", lambda: score.of(self.forms.source))

    def _growing(self, order: list[str]) -> Iterator[tuple[str, ...]]:
        limit = max(1, int(self.options.most_float * len(order)))
        for count in range(self.options.step, limit + self.options.step, self.options.step):
            yield tuple(node for name in order[: min(count, limit)] for node in self.forms.units[name])

    def _step(self, kept: tuple[str, ...]) -> SearchStep:
        rules = FloatRules(keep=frozenset(kept))
        key = " ".join(kept)
        score = self.memory.get(f"{self.score.name} keep {key}", lambda: self.score.of(self.forms.write(rules)))
        speedup, latency_ms = self._speed(key, rules)
        return SearchStep(kept_float=kept, score=score, speedup=speedup, latency_ms=latency_ms)

    def _speed(self, key: str, rules: FloatRules) -> tuple[float | None, float | None]:
        """Times FP32, and milliseconds."""
        if not self.options.measure or not measures_target(self.forms.target.name):
            return None, None
        measured = cache(lambda: measure_int8(self.forms.source, self.forms.write(rules), seconds=MEASURED_S))
        return (
            self.memory.get(f"speedup keep {key}", lambda: measured().speedup),
            self.memory.get(f"latency keep {key}", lambda: measured().int8_ms),
        )

    def _damage(self) -> dict[str, float]:
        """First node of each unit -> what the unit costs, worst first; equal ones in the graph's order."""
        found = {name: self._damage_of(name) for name in track(list(self.forms.units), "ranking layers")}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def _damage_of(self, name: str) -> float:
        alone = self.options.ranking == "quantize-one"
        unit = frozenset(self.forms.units[name])
        rules = FloatRules(only=unit) if alone else FloatRules(keep=unit)
        key = f"{self.rank_by.name} rank {self.options.ranking} {name}"
        score = self.memory.get(key, lambda: self.rank_by.of(self.forms.write(rules)))
        return self._float_score(self.rank_by) - score if alone else score
