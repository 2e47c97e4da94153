"""Sparse training, distillation and quantization-aware training on Fashion-MNIST, on one core.

    nice -n 19 python benchmarks/training.py            # every row that is missing, then the tables
    python benchmarks/training.py --seeds 1 --rows sparse qat

A small ResNet learns from part of Fashion-MNIST; all rows of a seed start from the same trained network, and rows that
are compared take the same number of steps. Rows are kept in --work one by one, where a training in progress has its
checkpoint: a killed run goes on when it is called again, and writes benchmarks/results/training.md in the end.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept_rows import TimedRows
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import eightfold as ef
from eightfold.compress.train.devices import Devices
from eightfold.compress.train.distill.hook import Distill
from eightfold.compress.train.hooks import Batch, Hook
from eightfold.compress.train.loop import fit
from eightfold.compress.train.options import LoopOptions
from eightfold.compress.train.qat.hook import QuantizationSchedule
from eightfold.compress.train.qat.start_ranges import observed_ranges
from eightfold.compress.train.schedule import LearningRate
from eightfold.compress.train.sparsity.history import dead_share
from eightfold.compress.train.sparsity.hook import Sparsity
from eightfold.compress.train.sparsity.penalties import ScalePenalty
from eightfold.compress.train.sparsity.proximal import Update
from eightfold.compress.train.sparsity.scales import batch_norm_scales, shifts_of
from eightfold.compress.train.sparsity.strength import Kind, Strength
from eightfold.files import write_text
from eightfold.zoo.datasets.fashion import read_fashion

RESULTS = Path(__file__).parent / "results" / "training.md"
BATCH = 64
IMAGE = torch.zeros(1, 1, 28, 28)
RULES = ("normal", "shortcut", "slim", "regular", "global", "uniform")
RETRAINED = ("global",)
STUDENT_SHARE, QAT_SHARE = 0.445, 0.134  # of the steps of a whole training
PENALTIES: tuple[tuple[float, Kind], ...] = ((0.0, "constant"), (1e-2, "release"), (1.6e-2, "release"))
# Method -> weights of its losses, temperature, weight of the labels' loss.
STUDENTS: dict[str, tuple[dict[str, float], float, float]] = {
    "none": ({}, 4.0, 1.0),
    "logits": ({"logits": 1.0}, 4.0, 1.0),
    "logits-t2": ({"logits": 1.0}, 2.0, 1.0),
    "logits-mostly": ({"logits": 1.0}, 4.0, 0.1),
    "cwd": ({"cwd": 0.3}, 4.0, 1.0),
    "attention": ({"attention": 100.0}, 4.0, 1.0),
}
EVERY_SEED = ("none", "logits-t2", "cwd")  # the others once


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        plain = stride == 1 and inputs == outputs
        self.skip = (
            nn.Identity()
            if plain
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.skip(x) + self.norm2(self.conv2(y)))


class FashionNet(nn.Sequential):
    """A ResNet of four blocks, `width` to four times as many channels wide."""

    def __init__(self, width: int = 16) -> None:
        w = width
        super().__init__(
            nn.Sequential(nn.Conv2d(1, w, 3, 2, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU()),
            nn.Sequential(Block(w, w, 1)),
            nn.Sequential(Block(w, 2 * w, 2), Block(2 * w, 2 * w, 1)),
            nn.Sequential(Block(2 * w, 4 * w, 2)),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * w, 10)),
        )


class Data:
    """Images [n, 1, 28, 28] and labels; batches are shuffled, shifted by up to 2 pixels and mirrored by number."""

    def __init__(self, train: int, batch: int = BATCH) -> None:
        self.batch = batch
        self.x, self.y = self._part("train", train)
        self.test_x, self.test_y = self._part("test", 10_000)

    def _part(self, name: str, count: int) -> tuple[Tensor, Tensor]:
        part = read_fashion(name)
        images = (torch.from_numpy(part.images[:count].astype(np.float32))[:, None] / 255 - 0.286) / 0.353
        return images, torch.from_numpy(part.labels[:count].astype(np.int64))

    def batches(self, seed: int) -> Callable[[int], Batch]:
        per_epoch = len(self.x) // self.batch

        def at(number: int) -> Batch:
            epoch, place = divmod(number, per_epoch)
            order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(1000 * seed + epoch))
            rows = order[place * self.batch : (place + 1) * self.batch]
            draw = torch.Generator().manual_seed(number)
            images = self.x[rows]
            if bool(torch.randint(2, (1,), generator=draw)):
                images = images.flip(3)
            shift = torch.randint(-2, 3, (2,), generator=draw).tolist()
            return Batch((torch.roll(images, shift, (2, 3)),), self.y[rows])

        return at

    @torch.no_grad()
    def top1(self, model: nn.Module) -> float:
        """Percent of the test images."""
        model.eval()
        answers = torch.cat([model(part).argmax(1) for part in self.test_x.split(1000)])
        return 100 * float((answers == self.test_y).float().mean())


class Bench(TimedRows):
    """Rows that are kept, and trainings that go on where they were killed."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.data, self.steps, self.work = Data(arguments.images), arguments.steps, Path(arguments.work)
        self.width = arguments.width
        self.rate, self.work_rate = 0.1, 0.05
        self.work.mkdir(parents=True, exist_ok=True)
        super().__init__(self.work / "rows.json")
        self.about = {"width": self.width, "images": arguments.images, "steps": self.steps, "batch": BATCH}

    def trained(
        self,
        name: str,
        model: nn.Module,
        seed: int,
        *,
        share: float = 1.0,
        rate: float | None = None,
        hooks: Sequence[Hook] = (),
        loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    ) -> nn.Module:
        """`model` after `share` of the steps; kept as a file."""
        options = LoopOptions(steps=int(share * self.steps), rate=LearningRate("cosine", 0.1), seed=seed, what=name)
        return trained(
            model, self.data.batches(seed), options, rate or self.work_rate, self.work / f"{name}.pt", hooks, loss
        )

    def dense(self, seed: int) -> nn.Module:
        """The network that all rows of a seed start from."""
        torch.manual_seed(seed)
        return self.trained(f"dense-{seed}", FashionNet(self.width), seed, rate=self.rate)

    def longer(self, seed: int, s: float, kind: Kind) -> nn.Module:
        """The dense network after as many steps again, with a penalty of `s`, or none."""
        model = self.dense(seed)
        scales = batch_norm_scales(model)
        update: Update = "subgradient" if kind == "constant" else "proximal"
        hooks = [Sparsity(ScalePenalty(scales, Strength(s, kind), shifts_of(model, scales)), update)] if s else []
        return self.trained(f"longer-{seed}-{penalty_name(s, kind)}", model, seed + 50, hooks=hooks)


def trained(
    model: nn.Module,
    batches: Callable[[int], Batch],
    options: LoopOptions,
    rate: float,
    file: Path,
    hooks: Sequence[Hook] = (),
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
) -> nn.Module:
    """`model` after SGD on labelled images; kept in `file`."""
    if file.is_file():
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()
    weights = [each for each in model.parameters() if each.dim() > 1]
    others = [each for each in model.parameters() if each.dim() <= 1]
    groups = [{"params": weights, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    checkpoint, devices = file.with_suffix(".safetensors"), Devices("cpu", "off")
    fit(model, batches, optimizer, options, loss=loss, hooks=hooks, checkpoint=checkpoint, devices=devices)
    torch.save(model.state_dict(), file)
    return model.eval()


def penalty_name(s: float, kind: Kind) -> str:
    """In rows and files."""
    return f"{s:g}" if kind == "constant" else f"{s:g}-{kind}"


def scales(model: nn.Module) -> float:
    """Percent of batch norm scales below 1% of their layer's largest."""
    return 100 * dead_share({name: scale.detach().abs() for name, scale in batch_norm_scales(model).items()})


def pruned(model: nn.Module, rule: str, multiple: int = 8) -> tuple[nn.Module, float]:
    """A copy with half of the channels, by batch norm scales and their shifts' compensation; share of MACs left."""
    twin = copy.deepcopy(model)
    before = ef.count_macs(twin, IMAGE)
    ef.prune(
        twin, IMAGE, rule=rule, score="bn_scale", keep_ratio=0.5, multiple=multiple, compensation="bn_beta",
    )  # fmt: skip
    return twin, ef.count_macs(twin, IMAGE) / before


def sparse_rows(bench: Bench, seed: int) -> None:
    """Plain and sparse training of equal length; what pruning then costs, before and after training again."""
    bench.row(f"dense/{seed}", lambda: {"top1": bench.data.top1(bench.dense(seed))})
    for s, kind in PENALTIES:
        name = f"{penalty_name(s, kind)}/{seed}"

        def trained(s: float = s, kind: Kind = kind) -> dict[str, Any]:
            model = bench.longer(seed, s, kind)
            return {"top1": bench.data.top1(model), "dead": scales(model), "limit": ef.suggested_ratio(model).limit}

        bench.row(f"trained/{name}", trained)
        for rule in RULES if seed == 0 else ("slim",):

            def cut(s: float = s, kind: Kind = kind, rule: str = rule) -> dict[str, Any]:
                model, macs = pruned(bench.longer(seed, s, kind), rule)
                found = {"before": bench.data.top1(model), "macs": macs}
                if rule in RETRAINED:
                    key = f"again-{rule}-{penalty_name(s, kind)}-{seed}"
                    found["after"] = bench.data.top1(bench.trained(key, model, seed + 60, share=0.25))
                return found

            bench.row(f"cut/{rule}/{name}", cut)


def distill_rows(bench: Bench, seed: int) -> None:
    """The same narrow student of one teacher, trained with labels alone and with the teacher beside them."""
    for method, (weights, temperature, labels) in STUDENTS.items():
        if seed and method not in EVERY_SEED:
            continue

        def student(
            method: str = method,
            weights: dict[str, float] = weights,
            temperature: float = temperature,
            labels: float = labels,
        ) -> dict[str, Any]:
            teacher = bench.longer(0, 0.0, "constant")
            model = copy.deepcopy(teacher)
            ef.prune(model, IMAGE, rule="uniform", score="l2", keep_ratio=0.25, multiple=4)
            hooks = []
            if weights:
                torch.manual_seed(seed)
                options = ef.DistillOptions(weights, temperature=temperature)
                hooks = [Distill(ef.Distiller(model, teacher, IMAGE, options))]
            key = f"student-{method}-{seed}"
            model = bench.trained(
                key, model, seed + 70, share=STUDENT_SHARE, hooks=hooks, loss=lambda o, y: labels * cross_entropy(o, y)
            )
            return {"top1": bench.data.top1(model)}

        bench.row(f"student/{method}/{seed}", student)


def qat_rows(bench: Bench, seed: int) -> None:
    """Rounding after training alone, and after training with it; the exported graph beside the module."""
    for scheme, bits in (("affine", 8), ("lsq", 8), ("affine", 4), ("lsq", 4), ("dorefa", 4), ("pow2", 8)):

        def quantized(scheme: str = scheme, bits: int = bits) -> dict[str, Any]:
            model = bench.longer(seed, 0.0, "constant")
            ranges = observed_ranges(model, [(part,) for part in bench.data.x[:512].split(64)])
            ends = ("0.0", "4.2") if bits < 8 else ()
            ef.prepare_qat(
                model, IMAGE, ranges=ranges, options=ef.QatOptions(scheme, weight_bits=bits, eight_bit_layers=ends)
            )
            after_training = bench.data.top1(model)
            rate = 0.01 if scheme != "lsq" else 0.003
            key = f"qat-{scheme}{bits}-{seed}"
            hooks = [QuantizationSchedule()]
            model = bench.trained(key, model, seed + 80, share=QAT_SHARE, rate=rate, hooks=hooks)
            found = {"rounded": after_training, "trained": bench.data.top1(model)}
            return found | agreement(model, bench.data, bench.work / f"{key}.onnx")

        bench.row(f"qat/{scheme}{bits}/{seed}", quantized)


def agreement(model: nn.Module, data: Data, path: Path) -> dict[str, float]:
    """Top-1 of the exported Q/DQ graph in onnxruntime, and the share of test images where both answer alike."""
    import onnxruntime

    from eightfold.compress.train.qat.export import deployed
    from eightfold.export.torch.onnx_export import onnx_from_module

    graph = onnx_from_module(deployed(model), data.test_x[:500])
    path.write_bytes(graph.SerializeToString())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: part.numpy()})[0].argmax(1) for part in data.test_x.split(500)]
    with torch.no_grad():
        module = torch.cat([model(part).argmax(1) for part in data.test_x.split(500)]).numpy()
    answers = np.concatenate(parts)
    return {
        "graph": 100 * float((answers == data.test_y.numpy()).mean()),
        "alike": 100 * float((answers == module).mean()),
    }


def table(bench: Bench) -> str:
    """All rows as markdown."""
    about = bench.about
    lines = [
        "# Training: sparse, distilled, quantized",
        "",
        f"`python benchmarks/training.py`: a ResNet of four blocks ({about['width']} to {4 * about['width']} channels)",
        f"on {about['images']} images of",
        f"Fashion-MNIST, {about['steps']} steps of {about['batch']} for a whole training; top-1 on 10,000 test images,",
        "in percent. Seconds are of one CPU core. Trainings are short: rows compare methods, no more.",
        "",
        "| row | figures |",
        "|---|---|",
    ]
    return "\n".join(lines + bench.lines()) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="*", default=["sparse", "qat", "distill"])
    parser.add_argument("--work", default="runs/training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(arguments)
    for seed in range(arguments.seeds):
        for name in arguments.rows:
            {"sparse": sparse_rows, "qat": qat_rows, "distill": distill_rows}[name](bench, seed)
    write_text(RESULTS, table(bench))


if __name__ == "__main__":
    main()
