"""Detectors on generated scenes: methods of pruning after plain and sparse training, teachers, many steps or one.

    nice -n 19 python benchmarks/detectors.py                          # every row that is missing, then the table
    python benchmarks/detectors.py --rows methods --classes 3 --seeds 1

A small residual detector with anchors learns scenes of 3 and of 12 classes. `methods`: half of the channels go by each
rule after plain and after sparse training of equal length; mAP50 before and after training again. `teachers`: a pruned
student trained alone and with each strategy. `steps`: sixteen steps to half of the channels, one step with as many
epochs, and random weights of the same shape. Rows are kept in --work one by one, where a training in progress has its
checkpoint: a run that was killed goes on when it is called again.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept_rows import TimedRows
from torch import Tensor, nn

import eightfold as ef
from eightfold.calib.images.preprocess import Preprocess
from eightfold.compress.train.hooks import Hook
from eightfold.compress.train.iterate.options import IterateOptions, StepTraining
from eightfold.compress.train.sparsity.history import dead_share
from eightfold.compress.train.sparsity.hook import Sparsity
from eightfold.compress.train.sparsity.penalties import ScalePenalty
from eightfold.compress.train.sparsity.scales import batch_norm_scales, shifts_of
from eightfold.compress.train.sparsity.strength import Strength
from eightfold.files import write_text
from eightfold.recipe_sections import TaskSection
from eightfold.runtime.postprocess import decoder_of
from eightfold.tasks.boxed_images import BoxedImages, Objects
from eightfold.tasks.detect import Detect
from eightfold.tasks.detection.augment import DetectionAugment
from eightfold.tasks.detection.batches import DetectionBatches
from eightfold.tasks.detection.losses import detection_loss
from eightfold.tasks.detection.training import DetectionTraining, UnmatchedWarning, train_detector
from eightfold.tasks.distilling import distillation_hooks
from eightfold.tasks.networks import module_network
from eightfold.zoo.datasets.scenes import SHAPES, SceneOptions, scene

RESULTS = Path(__file__).parent / "results" / "detectors.md"
SIDE, BATCH = 96, 16
IMAGE = torch.zeros(1, 3, SIDE, SIDE)
ANCHORS = [[[16, 16], [28, 28], [44, 44]]]
PREPROCESS = Preprocess(height=SIDE, width=SIDE, scale=1 / 255)
RULES: dict[str, dict[str, Any]] = {
    "normal": {"rule": "normal"},
    "shortcut": {"rule": "shortcut"},
    "slim": {"rule": "slim"},
    "regular": {"rule": "regular"},
    "layer": {"rule": "layer", "remove_blocks": 2, "block_score": "bn_scale"},
    "layer_channel": {"rule": "layer_channel", "remove_blocks": 1, "block_score": "bn_scale"},
}
TEACHERS: dict[str, dict[str, float]] = {
    "alone": {},
    **{f"detection-{n}": {f"detection-{n}": 1.0} for n in range(1, 6)},
    "attention": {"attention": 100.0},
    "cwd": {"cwd": 0.3},
}


class Block(nn.Module):
    """A bottleneck with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.body = nn.Sequential(
            nn.Conv2d(width, half, 1, bias=False), nn.BatchNorm2d(half), nn.LeakyReLU(0.1),
            nn.Conv2d(half, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class SmallYolo(nn.Module):
    """Raw maps [batch, 3 * (5 + classes), side / 8, side / 8]."""

    def __init__(self, classes: int) -> None:
        super().__init__()

        def down(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1)]

        self.body = nn.Sequential(
            *down(3, 16), *down(16, 32), Block(32), *down(32, 64), Block(64), Block(64), Block(64),
            nn.Conv2d(64, 96, 3, 1, 1, bias=False), nn.BatchNorm2d(96), nn.LeakyReLU(0.1),
        )  # fmt: skip
        self.head = nn.Conv2d(96, 3 * (5 + classes), 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.head(self.body(x))]


class Bench(TimedRows):
    """Rows of one number of classes, kept one by one."""

    def __init__(self, classes: int, arguments: argparse.Namespace) -> None:
        self.classes, self.arguments = classes, arguments
        self.work = Path(arguments.work) / str(classes)
        self.work.mkdir(parents=True, exist_ok=True)
        self.train, self.test = self._scenes(0, arguments.images), self._scenes(10**6, arguments.test_images)
        section = TaskSection(kind="detect", decode="yolo-anchors", options={"anchors": ANCHORS})
        self.task = Detect(section)
        super().__init__(self.work / "rows.json")

    def _scenes(self, first: int, count: int) -> BoxedImages:
        drawn = [
            scene(number, SceneOptions(classes=self.classes, size=SIDE, most=3))
            for number in range(first, first + count)
        ]
        objects = tuple(Objects(each.boxes, each.labels, np.zeros(len(each.labels), bool)) for each in drawn)
        return BoxedImages(tuple(each.image for each in drawn), None, SHAPES[: self.classes], objects)

    def map50(self, model: nn.Module) -> float:
        """Percent, on the test scenes."""
        network = module_network(model, PREPROCESS, self.task.outputs_mean(self.test.classes), batch=25)
        return 100 * self.task.evaluate(network, self.test)["map50"]

    def trained(
        self, name: str, model: nn.Module, epochs: int, seed: int, *, rate: float = 0.02, hooks: Sequence[Hook] = ()
    ) -> nn.Module:
        """`model` after so many epochs; kept as a file."""
        file = self.work / f"{name}.pt"
        if not file.is_file():
            meaning: Any = decoder_of(self.task.outputs_mean(self.train.classes))
            loss = detection_loss("yolo-anchors", meaning, self.classes)
            batches = DetectionBatches(self.train, PREPROCESS, BATCH, DetectionAugment(mosaic=0.3), seed=seed)
            settings = DetectionTraining(epochs, rate, average=0.99, nominal_batch=BATCH, hooks=hooks, device="cpu")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnmatchedWarning)
                train_detector(model, loss, batches, settings, checkpoint=self.work / f"{name}.safetensors", what=name)
            torch.save(model.state_dict(), file)
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()

    def dense(self, seed: int) -> nn.Module:
        """The network that all rows of a seed start from."""
        torch.manual_seed(seed)
        return self.trained(f"dense-{seed}", SmallYolo(self.classes), self.arguments.epochs, seed)

    def longer(self, seed: int, s: float) -> nn.Module:
        """The dense network after as many epochs again, with a penalty or without."""
        model = self.dense(seed)
        scales = batch_norm_scales(model)
        penalty = ScalePenalty(scales, Strength(s or 1.0, "release"), shifts_of(model, scales))
        name = f"longer-{seed}-{s:g}"
        return self.trained(name, model, self.arguments.epochs, seed + 50, hooks=[Sparsity(penalty)] if s else [])


def method_rows(bench: Bench, seed: int) -> None:
    """Plain and sparse training of equal length; what each rule then costs."""
    bench.row(f"dense/{seed}", lambda: {"map50": bench.map50(bench.dense(seed))})
    for s in (0.0, bench.arguments.s):
        kind = "sparse" if s else "plain"

        def trained(s: float = s) -> dict[str, float]:
            model = bench.longer(seed, s)
            dead = dead_share({name: scale.detach().abs() for name, scale in batch_norm_scales(model).items()})
            return {"map50": bench.map50(model), "dead": 100 * dead}

        bench.row(f"trained/{kind}/{seed}", trained)
        for rule, options in RULES.items():

            def cut(s: float = s, rule: str = rule, options: dict[str, Any] = options) -> dict[str, float]:
                model = bench.longer(seed, s)
                whole = ef.count_macs(model, IMAGE)
                ef.prune(model, IMAGE, score="bn_scale", keep_ratio=0.5, compensation="bn_beta", **options)
                found = {"before": bench.map50(model), "macs": ef.count_macs(model, IMAGE) / whole}
                again = bench.trained(f"cut-{rule}-{s:g}-{seed}", model, bench.arguments.tune_epochs, seed + 60)
                return found | {"after": bench.map50(again)}

            bench.row(f"cut/{rule}/{kind}/{seed}", cut)


def teacher_rows(bench: Bench, seed: int) -> None:
    """One student of one teacher, trained alone and with each strategy; seeds are orders of the images."""
    for method, weights in TEACHERS.items():

        def student(method: str = method, weights: dict[str, float] = weights) -> dict[str, float]:
            teacher = bench.longer(0, 0.0)
            model = copy.deepcopy(teacher)
            ef.prune(model, IMAGE, rule="uniform", score="l2", keep_ratio=0.5)
            torch.manual_seed(seed)
            hooks = (
                distillation_hooks(bench.task, model, teacher, weights, IMAGE, SHAPES[: bench.classes])
                if weights
                else []
            )
            name = f"student-{method}-{seed}"
            return {
                "map50": bench.map50(bench.trained(name, model, bench.arguments.tune_epochs, seed + 70, hooks=hooks))
            }

        bench.row(f"student/{method}/{seed}", student)


def step_rows(bench: Bench, seed: int) -> None:
    """Sixteen steps; one step with as many epochs; random weights of that shape."""
    epochs = bench.arguments.step_epochs
    folder = bench.work / f"steps-{seed}"
    total = {"epochs": 0}

    def many() -> dict[str, float]:
        def tune(model: nn.Module, training: StepTraining) -> None:
            bench.trained(f"step-{training.step}-{seed}", model, training.epochs, seed + 80 + training.step)

        done = ef.iterate(
            bench.longer(seed, 0.0), IMAGE, tune, bench.map50, folder,
            options=IterateOptions(steps=16, keep_ratio=0.5, epochs=(epochs,)),
        )  # fmt: skip
        total["epochs"] = epochs * len(done.rows)  # the last step takes twice as many; the first row takes none
        dense = done.rows[0]
        return {
            "dense": dense.recovered,
            "map50": bench.map50(done.model),
            "macs": done.rows[-1].macs / dense.macs,
            "epochs": total["epochs"],
        }

    found = bench.row(f"steps/many/{seed}", many)
    for name in ("one", "random"):

        def single(name: str = name) -> dict[str, float]:
            model = bench.longer(seed, 0.0)
            plan = ef.plan_pruning(model, IMAGE, rule="uniform", score="group_l2", keep_ratio=0.5)
            if name == "random":
                torch.manual_seed(seed + 5)
                model = SmallYolo(bench.classes)
            ef.apply_plan(model, plan)
            again = bench.trained(f"steps-{name}-{seed}", model, int(found["epochs"]), seed + 90)
            return {"map50": bench.map50(again)}

        bench.row(f"steps/{name}/{seed}", single)


def table(benches: Sequence[Bench], arguments: argparse.Namespace) -> str:
    """All rows as markdown."""
    lines = [
        "# Detectors on generated scenes",
        "",
        f"`python benchmarks/detectors.py`, which says what the rows are. {arguments.images} scenes of {SIDE} pixels, "
        f"{arguments.epochs} epochs for a whole",
        f"training, {arguments.tune_epochs} after pruning; mAP50 in percent on {arguments.test_images} other scenes. "
        "Seconds are of one CPU core.",
        "",
        "| classes | row | figures |",
        "|---|---|---|",
    ]
    for bench in benches:
        lines += bench.lines(f" {bench.classes} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=["methods", "teachers", "steps"])
    parser.add_argument("--classes", nargs="*", type=int, default=[3, 12])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--test-images", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--tune-epochs", type=int, default=10)
    parser.add_argument("--step-epochs", type=int, default=3)
    parser.add_argument("--s", type=float, default=1e-2, help="strength of the penalty")
    parser.add_argument("--work", default="runs/detectors")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    benches = [Bench(classes, arguments) for classes in arguments.classes]
    parts = {"methods": method_rows, "teachers": teacher_rows, "steps": step_rows}
    for seed in range(arguments.seeds):
        for bench in benches:
            for name in arguments.rows:
                parts[name](bench, seed)
                write_text(RESULTS, table(benches, arguments))


if __name__ == "__main__":
    main()
