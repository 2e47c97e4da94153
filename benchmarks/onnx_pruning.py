"""Prune exported networks and the files that packages ship at keep ratio 0.5, and write what happened to each.

Usage: python benchmarks/onnx_pruning.py [NAME ...] [--every-form] [--rows FILE] [--output FILE] [--keep-files]

NAME is one of `onnx_names.txt` or of `onnx_shipped.SHIPPED`; by default all. Each network is tried as one file, two
exporters, as written and simplified, taking turns through the list; with --every-form as all four. Exports are made in
build/onnx_exports, and removed after their rows. Finished rows are kept in --rows FILE, and an interrupted run goes on
behind them. Every network has a process of its own.

Exports run on random values, shipped files on a photographed page of text.

Of a file are told: whether its plan has the groups and the kept counts of the module's; how far onnxruntime's answer on
the written file is from the original graph's with the removed channels zeroed (run in torch), relative to its largest
value; the share of channels that may go and of the parameters that stay; CPU seconds of `ef.prune`. TensorRT-RTX builds
the pruned files of BUILT in FP16. A shipped file is quantized for a CPU and for TensorRT, too, and built in both forms.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from masked_reference import zeroed
from onnx_exports import EXPORTERS, FOLDER, FORMS, NETWORKS, build_network, export, file_of, in_a_process
from onnx_shipped import SHIPPED, TARGET, photograph, quantized_and_built, shipped_file

import eightfold as ef
from eightfold.compress.inspection import frozen_by
from eightfold.compress.onnx.graph_file import open_onnx
from eightfold.compress.onnx.inputs import example_inputs
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.surgery.surgery import Width
from eightfold.compress.trace.trace import trace

HERE = Path(__file__).parent
RESULT = HERE / "results" / "onnx_pruning.md"
ROWS = HERE.parent / "build" / "onnx_pruning.jsonl"
TOLERANCE = 1e-4
# Reasons that every network has.
USUAL = ("output of the model", "input without prunable channels")
NOT_EXPORTED = "torch does not export it"
BUILT = (
    "resnet18", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "densenet121", "efficientnet_b0",
    "squeezenet1_1", "regnet_y_400mf", "googlenet", "mnasnet0_5", "timm:ghostnet_100", "timm:repvgg_a0",
    "timm:convnext_atto", "timm:vit_tiny_patch16_224", "yolov5n.yaml", "yolov8n.yaml", "yolo11n.yaml",
    "yolov8n-seg.yaml", "smp:Unet/resnet18", "smp:FPN/resnet18", "hf:resnet", "hf:mobilenet_v2", "hf:vit",
    "hf:segformer",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One file's line."""

    name: str
    form: str
    verdict: str
    same_plan: str = ""
    error: float = 0.0
    free: float = 0.0
    left: float = 0.0
    seconds: float = 0.0
    remarks: str = ""
    engine: str = ""

    @property
    def works(self) -> bool:
        return self.verdict == "works"


def forms_of(name: str, *, every: bool) -> list[str]:
    """The files that a network is tried as: "dynamo, raw"."""
    if name in SHIPPED:
        return [SHIPPED[name].words]
    forms = [f"{exporter}, {form}" for exporter in EXPORTERS for form in FORMS]
    return forms if every else [forms[NETWORKS.index(name) % len(forms)]]


def write_rows(name: str, folder: Path, rows: Path, wanted: list[str]) -> None:
    """Append a row for each of these forms of the network."""
    warnings.simplefilter("ignore")
    for row in rows_of(name, folder, wanted):
        with rows.open("a") as stream:
            stream.write(json.dumps(asdict(row)) + "\n")


def rows_of(name: str, folder: Path, wanted: list[str]) -> Iterator[Row]:
    if name in SHIPPED:
        yield _shipped(name)
        return
    model, example = build_network(name)
    plan = ef.plan_pruning(model, example)
    for exporter in dict.fromkeys(form.partition(", ")[0] for form in wanted):
        forms = [form for form in FORMS if f"{exporter}, {form}" in wanted]
        files = {form: file_of(folder, name, exporter, form) for form in FORMS}
        try:
            export(model, example, exporter, files["raw"], files["simplified"] if "simplified" in forms else None)
        except Exception as error:  # whatever an exporter raises
            yield from (Row(name, f"{exporter}, {form}", f"{NOT_EXPORTED} ({type(error).__name__})") for form in forms)
            continue
        for form in forms:
            yield _tried(name, f"{exporter}, {form}", files[form], plan, built=name in BUILT and form == forms[-1])


def _tried(
    name: str,
    form: str,
    file: Path,
    expected: PrunePlan | None,
    size: tuple[int, int] | None = None,
    *,
    built: bool = False,
) -> Row:
    try:
        with tempfile.TemporaryDirectory() as place:
            pruned = Path(place) / "pruned.onnx"
            row = _measured(name, form, file, expected, size, pruned)
            if expected is None:
                return replace(row, engine=quantized_and_built(pruned, size, Path(place)))
            return replace(row, engine=_built(pruned, Path(place))) if built else row
    except Exception as error:  # whatever it is, it is what this program looks for
        return Row(name, form, f"{type(error).__name__}: {str(error)[:300]}")


def _built(pruned: Path, folder: Path) -> str:
    ef.build_engine(pruned, folder / "model.engine", target=TARGET, precision="fp16")
    return "FP16 engine builds"


def _measured(
    name: str, form: str, file: Path, expected: PrunePlan | None, size: tuple[int, int] | None, output: Path
) -> Row:
    start = time.process_time()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        done = ef.prune(file, output=output, size=size)
    seconds = time.process_time() - start
    graph = open_onnx(file, size=size)
    examples = example_inputs(graph.module.inputs, size=size)
    if expected is None:  # a shipped file, which knows its images
        examples = (torch.from_numpy(photograph(tuple(examples[0].shape))),)
    channels = trace(graph.module, examples)
    with zeroed(graph.module, done.plan), torch.no_grad():
        masked = graph.module(*examples)
    masked = masked if isinstance(masked, tuple) else (masked,)
    # Of a trained network, relative to what it answered before: a map of probabilities may vanish without compensation.
    least = [0.0] * len(masked) if expected is not None else [_largest(each) for each in _answers(file, examples)]
    answers = zip(_answers(output, examples), masked, least, strict=True)
    error = max(_apart(a, b.numpy(), scale) for a, b, scale in answers)
    odd = [width for width in done.surgery.changed if _is_odd(width)]
    verdict = "works" if error < TOLERANCE else f"answers differ by {error:.1e}"
    verdict = verdict if not odd else f"{odd[0].weight} has the widths {odd[0].after}"
    free, every = (sum(group.width for group in some) for some in (channels.free, channels.groups))
    left = done.surgery.parameters_after / max(done.surgery.parameters_before, 1)
    told = [str(warning.message)[:160] for warning in seen if "left whole" in str(warning.message)]
    frozen = [(reason, count) for reason, count in frozen_by(channels).most_common() if not reason.startswith(USUAL)]
    told += [f"{count} frozen: {reason}" for reason, count in frozen[:2]]
    same = "" if expected is None else compared(expected, done.plan)
    return Row(name, form, verdict, same, error, free / max(every, 1), left, seconds, "; ".join(told))


def _is_odd(width: Width) -> bool:
    """Whether the outputs of a convolution or product changed, and are no multiple of 8. The second width of a weight
    is that of one group of a grouped convolution; a vector may count heads of attention."""
    layer = sum(size > 1 for size in width.before) > 1
    return layer and width.before[0] != width.after[0] and width.after[0] % 8 != 0


def compared(module: PrunePlan, file: PrunePlan) -> str:
    a, b = _counts(module), _counts(file)
    if a == b:
        return "same"
    missing, more = sum((a - b).values()), sum((b - a).values())
    return f"{missing} groups of the module's missing, {more} others"


def _counts(plan: PrunePlan) -> Counter[tuple[int, int, int, int]]:
    """Groups by width, kept channels, and the weights that make and read them."""
    found: Counter[tuple[int, int, int, int]] = Counter()
    for group in plan.groups:
        weights = [member for member in group.members if len(plan.shapes[member.tensor]) > 1]
        makes, reads = (len({m.tensor for m in weights if m.role == role}) for role in ("producer", "consumer"))
        found[group.width, len(group.kept), makes, reads] += 1
    return found


def _answers(file: Path, examples: tuple[torch.Tensor, ...]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    feeds = {each.name: x.numpy() for each, x in zip(session.get_inputs(), examples, strict=True)}
    return list(session.run(None, feeds))


def _largest(values: Any) -> float:
    return float(np.abs(values).max(initial=0))


def _apart(a: Any, b: Any, least: float) -> float:
    """The largest difference, relative to the largest value of `b` and to no less than `least`."""
    if a.shape != b.shape:
        return float("inf")
    scale = max(_largest(b), least)
    return float(np.abs(a.astype(np.float64) - b).max(initial=0)) / max(scale, 1e-12)


def _shipped(name: str) -> Row:
    return _tried(name, SHIPPED[name].words, shipped_file(name), None, SHIPPED[name].size)


def table(rows: list[Row]) -> str:
    exported = [row for row in rows if not row.verdict.startswith(NOT_EXPORTED)]
    works = sum(row.works for row in exported)
    compared = [row for row in exported if row.same_plan]
    same = sum(row.same_plan == "same" for row in compared)
    networks = len({row.name for row in exported if row.name not in SHIPPED})
    shipped = sum(row.name in SHIPPED for row in exported)
    lines = [
        "# Pruning of ONNX files",
        "",
        f"{works} of {len(exported)} files work: exports of {networks} networks, and {shipped} that packages ship; "
        f"{same} of {len(compared)} have the module's plan; "
        f"engines of {sum(bool(row.engine) for row in exported)} files build. Keep ratio 0.5.",
        f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {platform.machine()}",
        "",
        "| network | file | result | plan | error | free channels | parameters left | CPU s | engines | remarks |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        figures = f"{row.error:.0e} | {row.free:.0%} | {row.left:.0%} | {row.seconds:.1f} | {row.engine}"
        lines.append(f"| {row.name} | {row.form} | {row.verdict} | {row.same_plan} | {figures} | {row.remarks} |")
    return "\n".join([*lines, ""])


def kept_rows(path: Path, names: list[str]) -> list[Row]:
    lines = path.read_text().splitlines() if path.exists() else []
    order = {name: place for place, name in enumerate(names)}
    rows = [row for row in (Row(**json.loads(line)) for line in lines) if row.name in order]
    return sorted(rows, key=lambda row: order[row.name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[*SHIPPED, *NETWORKS])
    parser.add_argument("--every-form", action="store_true", help="each network as four files")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--rows", type=Path, default=ROWS, help="file that keeps finished rows")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--keep-files", action="store_true", help="do not remove the exports")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        before = {row.form for row in kept_rows(options.rows, [name])}
        wanted = [form for form in forms_of(name, every=options.every_form) if form not in before]
        if not wanted:
            continue
        wrong = in_a_process(write_rows, name, options.folder, options.rows, wanted)
        made = [row.verdict for row in kept_rows(options.rows, [name]) if row.form not in before]
        print(name, *made, wrong, flush=True)
        if not options.keep_files:
            for exporter in EXPORTERS:
                for form in FORMS:
                    file_of(options.folder, name, exporter, form).unlink(missing_ok=True)
    options.output.write_text(table(kept_rows(options.rows, options.names)))


if __name__ == "__main__":
    main()
