"""Every step that changes a graph, held against the ONNX project's own backend tests: models with inputs and outputs.

Usage: python benchmarks/onnx_conformance.py [--every N] [--step NAME] [--form NAME] [--output FILE]

Each model that onnxruntime runs and answers as expected goes through each step, as it is and in other forms (weights as
inputs, in a branch, in a function, with axes of any length ...; see onnx_cases.py). What comes out has to pass onnx's
full check and to give the expected outputs. A refusal has to be in words: an EightfoldError. Exit code 1 where anything
else happens.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import logging
import platform
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto
from onnx_cases import FORMS, Case, backend_cases

from eightfold.errors import EightfoldError, ModelError
from eightfold.export.fixed_size.fix_shapes import frozen
from eightfold.export.fp16.fp16 import with_node_names
from eightfold.export.fp16.fp16_emulation import emulated_fp16
from eightfold.export.fp16.fp16_graph import LARGEST, HalfType, fp16_graph
from eightfold.export.opset.opset_conversion import with_opset
from eightfold.export.opset.opsets import newest_opset
from eightfold.export.simplify.constants import computed_constants, freeze_constants
from eightfold.export.simplify.passes.run import PASSES, Pass, apply_passes
from eightfold.export.simplify.simplify import simplify
from eightfold.export.verify.verify import runner, with_outputs
from eightfold.onnx_graph.canonicalize import canonicalized
from eightfold.onnx_graph.onnx_clean import clean
from eightfold.onnx_graph.onnx_files import opset_of
from eightfold.onnx_graph.shape_inference import state_shapes

RESULT = Path(__file__).parent / "results" / "onnx_conformance.md"
TARGETS = ("tensorrt:8.2", "tensorrt:8.5", "tensorrt:8.6", "tensorrt:10.3", "tensorrt:10.15")
# How far 16 bits may move an answer, in units of its largest value; of codes, in codes.
HALF_TOLERANCES: dict[HalfType, float] = {"float16": 0.02, "bfloat16": 0.16}
HALF_CODES = 2
# What onnxruntime says of an operator that it knows, in a version or type that it does not run on CPUs.
NO_KERNEL = "NOT_IMPLEMENTED"
MOST_BYTES = 6 * 2**30
# The tools take a second.
SIMPLIFIED_FORMS = ("as_it_is",)

Step = Callable[[Case, ModelProto], ModelProto]
Judge = Callable[[ModelProto, Case], bool]


@dataclasses.dataclass(frozen=True)
class Trial:
    """A step, how its answers are judged and which forms go through it."""

    step: Step
    judge: Judge
    forms: Sequence[str] = tuple(form.__name__ for form in FORMS)


def answer(model: ModelProto, feeds: dict[str, Any]) -> list[Any]:
    """onnxruntime writes into some of the arrays that it is given."""
    return list(runner(model)(copy.deepcopy(feeds)).values())


def is_expected(model: ModelProto, case: Case) -> bool:
    found = answer(model, case.feeds)
    pairs = zip(found, case.expected, strict=True)
    return all(_alike(seen, known, case.rtol, case.atol) for seen, known in pairs)


def is_near(kind: HalfType) -> Judge:
    """In the arithmetic of 16 bits, which CPUs do not have: on the inputs, or on what 16 bits hold of them."""

    def judge(model: ModelProto, case: Case) -> bool:
        emulated = emulated_fp16(model, kind)
        if _all_near(answer(emulated, case.feeds), case.expected, HALF_TOLERANCES[kind]):
            return True
        held = {name: _held(array, kind) for name, array in case.feeds.items()}
        known = answer(case.model, held)
        return _all_near(answer(emulated, held), known, HALF_TOLERANCES[kind])

    return judge


def _held(array: Any, kind: HalfType) -> Any:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or not array.size:
        return array
    if kind == "float16":
        return array.astype(np.float16).astype(np.float32)
    bits = np.ascontiguousarray(array).view(np.uint32)
    return (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16).astype(np.uint32).view(np.float32).reshape(array.shape)


def _all_near(found: Sequence[Any], known: Sequence[Any], tolerance: float) -> bool:
    return all(_is_near(seen, want, tolerance) for seen, want in zip(found, known, strict=True))


def _is_near(seen: Any, known: Any, tolerance: float) -> bool:
    if isinstance(known, list):
        return len(seen) == len(known) and _all_near(seen, known, tolerance)
    seen, known = np.asarray(seen), np.asarray(known)
    if known.dtype.kind not in "fiu" or not known.size:
        return _alike(seen, known, 0, 0)
    finite = np.isfinite(known)
    if seen.shape != known.shape or not np.array_equal(finite, np.isfinite(seen)):
        return False
    apart = np.abs(seen[finite].astype(np.float64) - known[finite]).max(initial=0)
    bound = HALF_CODES if known.dtype.kind in "iu" else tolerance * max(np.abs(known[finite]).max(initial=0), 1e-3)
    return bool(apart <= bound)


def _alike(seen: Any, known: Any, rtol: float, atol: float) -> bool:
    if isinstance(known, list):
        both = isinstance(seen, list) and len(seen) == len(known)
        return both and all(_alike(a, b, rtol, atol) for a, b in zip(seen, known, strict=True))
    if known is None or seen is None:
        return known is seen
    seen, known = np.asarray(seen), np.asarray(known)
    texts = "OSUT"
    if seen.shape != known.shape or (seen.dtype != known.dtype and known.dtype.kind not in texts):
        return False
    if known.dtype.kind in texts:
        return bool((seen.astype(str) == known.astype(str)).all())
    wide = np.complex128 if known.dtype.kind == "c" else np.float64
    return bool(np.allclose(seen.astype(wide), known.astype(wide), rtol, atol, equal_nan=True))


# Steps. Each gets a copy in the form that files are read in.


def alone(each: Pass) -> Step:
    def step(case: Case, model: ModelProto) -> ModelProto:
        state_shapes(model)
        if PASSES[each] <= opset_of(model):
            each(model.graph)
        return model

    return step


def all_passes(case: Case, model: ModelProto) -> ModelProto:
    apply_passes(model)
    return model


def constants_frozen(case: Case, model: ModelProto) -> ModelProto:
    wanted = computed_constants(model.graph)
    probe = copy.deepcopy(model)
    probe = with_outputs(probe, wanted) if wanted else probe
    try:
        found = runner(probe)(copy.deepcopy(case.feeds)) if wanted else {}
    except ModelError:  # some types cannot be handed out; `simplify` does without these as well
        found = {}
    freeze_constants(model.graph, {name: found[name] for name in wanted if name in found})
    return model


def cleaned(case: Case, model: ModelProto) -> ModelProto:
    return clean(model)


def freeze(case: Case, model: ModelProto) -> ModelProto:
    shapes = {name: array.shape for name, array in case.feeds.items() if isinstance(array, np.ndarray)}
    return frozen(model, shapes=shapes)


def to_target(target: str) -> Step:
    def step(case: Case, model: ModelProto) -> ModelProto:
        return with_opset(model, newest_opset(target), remedy="")

    return step


def half(kind: HalfType) -> Step:
    def step(case: Case, model: ModelProto) -> ModelProto:
        least = 22 if kind == "bfloat16" else 0
        if any(_beyond(array, kind) for array in case.expected):
            raise ModelError("the answer is beyond 16 bits, which only a measurement tells")
        typed = with_opset(model, max(least, opset_of(model)), remedy="")
        return fp16_graph(with_node_names(typed), kind=kind)

    return step


def _beyond(array: Any, kind: HalfType) -> bool:
    known = isinstance(array, np.ndarray) and array.dtype == np.float32
    return bool(known and np.any(np.abs(array[np.isfinite(array)]) > LARGEST[kind]))


def simplified(case: Case, model: ModelProto) -> ModelProto:
    """Whole, tools included; on a file, which is read as files are."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.onnx"
        onnx.save(case.model, str(file))
        return onnx.load(str(simplify(file)))


TRIALS: dict[str, Trial] = {
    **{f"pass {each.__name__}": Trial(alone(each), is_expected) for each in PASSES},
    "all passes": Trial(all_passes, is_expected),
    "constants": Trial(constants_frozen, is_expected),
    "clean": Trial(cleaned, is_expected),
    "freeze": Trial(freeze, is_expected),
    **{f"opset {newest_opset(target)} ({target})": Trial(to_target(target), is_expected) for target in TARGETS},
    **{kind: Trial(half(kind), is_near(kind)) for kind in HALF_TOLERANCES},
    "simplify": Trial(simplified, is_expected, SIMPLIFIED_FORMS),
}


@dataclasses.dataclass
class Tally:
    """What became of the cases of one step."""

    cases: int = 0
    changed: int = 0
    refused: Counter[str] = dataclasses.field(default_factory=Counter)
    unjudged: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    @property
    def right(self) -> int:
        return self.cases - self.refused.total() - self.unjudged - len(self.wrong)


def sound(case: Case) -> bool:
    """Whether onnxruntime and onnx itself agree with the test; others say nothing of a step."""
    try:
        onnx.checker.check_model(case.model, full_check=True)
        return _ranges_take_scalars(case.model) and is_expected(case.model, case)
    except (EightfoldError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False


def _ranges_take_scalars(model: ModelProto) -> bool:
    """As the standard has it. onnxruntime sees lists of one number only where enough else is constant."""
    found = onnx.shape_inference.infer_shapes(model).graph.value_info
    listed = {value.name for value in found if len(value.type.tensor_type.shape.dim)}
    return all(listed.isdisjoint(node.input) for node in model.graph.node if node.op_type == "Range")


def try_step(trial: Trial, case: Case, label: str, tally: Tally) -> None:
    start = time.process_time()
    tally.cases += 1
    model = canonicalized(copy.deepcopy(case.model))
    before = _content(model)
    try:
        made = trial.step(case, model)
    except EightfoldError as error:
        tally.refused[_reason(error)] += 1
    except Exception as error:  # whatever it is, it is what this program looks for
        tally.wrong.append(f"{label}: {_shown(error)}")
    else:
        tally.changed += _content(made) != before
        _judge(trial, case, made, label, tally)
    tally.seconds += time.process_time() - start


def _judge(trial: Trial, case: Case, made: ModelProto, label: str, tally: Tally) -> None:
    try:
        onnx.checker.check_model(made, full_check=True)
        if not trial.judge(made, case):
            tally.wrong.append(f"{label}: another answer")
    except Exception as error:  # as above, onnxruntime's own refusals included
        if NO_KERNEL in str(error):
            tally.unjudged += 1
        else:
            tally.wrong.append(f"{label}: {_shown(error)}")


def _content(model: ModelProto) -> bytes:
    """Without the shapes that are inferred."""
    shown = copy.deepcopy(model)
    del shown.graph.value_info[:]
    return shown.SerializeToString(deterministic=True)


def _shown(error: Exception) -> str:
    return f"{type(error).__name__} {str(error).strip()[:160]!r}"


def _reason(error: EightfoldError) -> str:
    """The words, without names and numbers."""
    words = re.sub(r"^the graph was written with opset .* converted to \d+ \((.*)\)$", r"\1", error.seen)
    words = re.sub(r"(?<!\S)/\S+", "the file", words)
    words = re.sub(r"\[ONNXRuntimeError\].*?(?=Name:|$)", "", words).split("Status Message")[0]
    return re.sub(r"'[^']*'|\d+", "_", words)[:90].strip()


def table(tallies: dict[str, Tally], every: int, sound_cases: int, left_out: int) -> str:
    lines = [
        "| step | cases | changed | right | refused | no kernel | wrong | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, each in tallies.items():
        counts = each.cases, each.changed, each.right, each.refused.total(), each.unjudged, len(each.wrong)
        figures = (*counts, f"{each.seconds:.0f}")
        lines.append(f"| {name} | {' | '.join(map(str, figures))} |")
    reasons = [
        f"- {name}: " + "; ".join(f"{count} {words}" for words, count in each.refused.most_common(8))
        for name, each in tallies.items()
        if each.refused
    ]
    wrong = [f"- {name}: {words}" for name, each in tallies.items() for words in each.wrong]
    share = "Every model." if every == 1 else f"One of {every} models."
    versions = f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}, Python {platform.python_version()}"
    return "\n".join(
        [
            "# The ONNX project's backend tests through every step",
            "",
            f"{share} {sound_cases} models and forms that onnxruntime answers as expected; {left_out} others left out.",
            versions,
            "",
            *lines,
            "",
            "## Refused, the most frequent words",
            "",
            *reasons,
            *(["", "## Wrong", "", *wrong] if wrong else []),
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="one of so many models")
    parser.add_argument("--step", action="append", choices=list(TRIALS), help="default: all")
    parser.add_argument("--form", action="append", choices=[form.__name__ for form in FORMS], help="default: all")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    # Some inputs are sizes, and random ones may be huge.
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    onnxruntime.set_default_logger_severity(4)
    tallies = {name: Tally() for name in options.step or TRIALS}
    sound_cases = left_out = 0
    for place, plain in enumerate(backend_cases()):
        if place % options.every:
            continue
        for form in FORMS:
            case = form(plain) if not options.form or form.__name__ in options.form else None
            if case is None:
                continue
            if not sound(case):
                left_out += 1
                continue
            sound_cases += 1
            for name, tally in tallies.items():
                if form.__name__ in TRIALS[name].forms:
                    try_step(TRIALS[name], case, f"{case.name} ({form.__name__})", tally)
    options.output.write_text(table(tallies, options.every, sound_cases, left_out))
    wrong = [words for tally in tallies.values() for words in tally.wrong]
    print(*wrong, f"{sum(each.right for each in tallies.values())} right, {len(wrong)} wrong", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
