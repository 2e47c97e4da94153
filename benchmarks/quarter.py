"""A ResNet and a MobileNetV2 at a quarter of their MACs on Fashion-MNIST: with labels and without, FP32 and INT8.

    nice -n 19 python benchmarks/quarter.py                          # every row that is missing, then the table
    python benchmarks/quarter.py --networks resnet --seeds 1

`labels`: pruned with least squares on images, then trained with labels and with the dense network's logits; `labels
alone` without the logits.
`no labels`: the same pruned network after `ef.recover` on training images whose labels nobody reads. Both start from
one plan (`rule="measured"`). INT8 is calibrated on 512 training images, and runs in onnxruntime. Rows are kept in
--work one by one, where a training in progress has its checkpoint: a run that was killed goes on when called again.

Intervals are of paired differences over the 10,000 test images (95%, normal), seeds averaged image by image.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from training import Data, FashionNet, trained

import eightfold as ef
from eightfold.compress.train.distill.hook import Distill
from eightfold.compress.train.hooks import Hook
from eightfold.compress.train.options import LoopOptions
from eightfold.compress.train.recover.options import RecoverOptions
from eightfold.compress.train.recover.views import Augment
from eightfold.compress.train.schedule import LearningRate
from eightfold.export.torch.onnx_export import onnx_from_module
from eightfold.files import write_text

RESULTS = Path(__file__).parent / "results" / "quarter.md"
IMAGE = torch.zeros(1, 1, 28, 28)
BATCH, FITTED, CALIBRATION = 128, 512, 512
SHARE = 0.25  # of the MACs
ROWS = ("dense", "dense INT8", "labels", "labels INT8", "labels alone", "no labels", "no labels INT8")


def mobilenet() -> nn.Module:
    """torchvision's MobileNetV2 at half its width for one channel of 28x28: the strides end at maps of 4x4."""
    from torchvision.models import mobilenet_v2

    model = mobilenet_v2(width_mult=0.5, num_classes=10)
    stem = model.features[0][0]
    model.features[0][0] = nn.Conv2d(1, stem.out_channels, 3, 2, 1, bias=False)
    for place in (2, 14):
        model.features[place].conv[1][0].stride = (1, 1)
    return model


NETWORKS: dict[str, Callable[[], nn.Module]] = {"resnet": lambda: FashionNet(32), "mobilenet": mobilenet}


class Quarter:
    """The rows of one network and seed."""

    def __init__(self, network: str, seed: int, data: Data, arguments: argparse.Namespace) -> None:
        self.network, self.seed, self.data, self.arguments = network, seed, data, arguments
        self.work = Path(arguments.work) / f"{network}-{seed}"
        self.work.mkdir(parents=True, exist_ok=True)

    def row(self, name: str) -> dict[str, Any]:
        """The row of that name, made where it is missing: MACs, top-1, and which test images are right."""
        file = self.work / f"{name.replace(' ', '-')}.json"
        if not file.is_file():
            begun = time.process_time()
            made = {"dense": self.dense, "labels": self.tuned, "labels alone": self.alone, "no labels": self.recovered}
            model = made[name.removesuffix(" INT8")]()
            right = self.int8(model, name) if name.endswith("INT8") else self.right(model)
            found = {
                "macs": ef.count_macs(model, IMAGE),
                "top1": 100 * float(right.mean()),
                "cpu_s": round(time.process_time() - begun),
                "right": np.packbits(right).tobytes().hex(),
            }
            write_text(file, json.dumps(found) + "\n")
            print(self.network, self.seed, name, f"{found['top1']:.2f}", found["cpu_s"], "s", flush=True)
        row: dict[str, Any] = json.loads(file.read_text())
        return row

    def dense(self) -> nn.Module:
        """Trained with labels."""
        torch.manual_seed(self.seed)
        model = NETWORKS[self.network]()
        return self.trained("dense", model, self.arguments.dense_steps, 0.1, self.seed)

    def pruned(self) -> tuple[nn.Module, ef.PrunePlan]:
        """The dense network at a quarter of its MACs, consumers' weights fitted by least squares."""
        model = self.dense()
        plan_file, file = self.work / "plan.json", self.work / "pruned.pt"
        if file.is_file():
            plan = ef.PrunePlan.load(plan_file)
            ef.apply_plan(model, plan)
            model.load_state_dict(torch.load(file, weights_only=True))
            return model.eval(), plan
        images = list(self.data.x[:FITTED].split(64))
        done = ef.prune(model, IMAGE, rule="measured", max_macs=SHARE, images=images, compensation="lsq")
        done.plan.save(plan_file)
        torch.save(model.state_dict(), file)
        return model.eval(), done.plan

    def tuned(self) -> nn.Module:
        """Pruned, and trained with labels and the dense network's logits."""
        model, teacher = self.pruned()[0], self.dense()
        hooks = [Distill(ef.Distiller(model, teacher, IMAGE, ef.DistillOptions({"logits": 1.0})))]
        return self.trained("tuned", model, self.arguments.tune_steps, 0.05, self.seed + 100, hooks)

    def alone(self) -> nn.Module:
        """Pruned, and trained as long with labels alone."""
        return self.trained("alone", self.pruned()[0], self.arguments.tune_steps, 0.05, self.seed + 100)

    def recovered(self) -> nn.Module:
        """Pruned, and trained to answer as the dense network, without labels."""
        (model, plan), file = self.pruned(), self.work / "recovered.pt"
        if file.is_file():
            model.load_state_dict(torch.load(file, weights_only=True))
            return model.eval()
        ef.recover(
            model, self.dense(), self.data.x[: self.arguments.unlabelled], plan=plan,
            minutes=self.arguments.recover_minutes, checkpoint=self.work / "recover.safetensors", seed=self.seed,
            options=RecoverOptions(
                clock="cpu", device="cpu", batch=32, augment=Augment(crop=0.85, flip=True, colour=0.1)
            ),
        )  # fmt: skip
        torch.save(model.state_dict(), file)
        return model.eval()

    def trained(
        self, name: str, model: nn.Module, steps: int, rate: float, seed: int, hooks: Sequence[Hook] = ()
    ) -> nn.Module:
        """`model` after SGD on labelled images; kept as a file."""
        rates = LearningRate("cosine", 0.1)
        options = LoopOptions(steps=steps, rate=rates, seed=seed, what=f"{self.network} {name}")
        return trained(model, self.data.batches(seed), options, rate, self.work / f"{name}.pt", hooks)

    def right(self, model: nn.Module) -> np.ndarray:
        """Whether each test image is right, bool [10000]."""
        with torch.no_grad():
            answers = torch.cat([model(part).argmax(1) for part in self.data.test_x.split(500)])
        return (answers == self.data.test_y).numpy()

    def int8(self, model: nn.Module, name: str) -> np.ndarray:
        """The same of the INT8 graph for this CPU in onnxruntime."""
        import onnxruntime

        path, output = self.work / "float.onnx", self.work / f"{name.replace(' ', '-')}.onnx"
        path.write_bytes(onnx_from_module(copy.deepcopy(model), self.data.x[:BATCH]).SerializeToString())
        ranges = ef.calibrate(path, list(self.data.x[:CALIBRATION].numpy()), None)
        ef.quantize(path, ranges, output, target="cpu-x86")
        session = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
        (source,) = session.get_inputs()
        answers = []
        for part in _padded(self.data.test_x, BATCH).split(BATCH):
            answers.append(session.run(None, {source.name: part.numpy()})[0].argmax(1))
        return np.concatenate(answers)[: len(self.data.test_y)] == self.data.test_y.numpy()


def _padded(images: Tensor, batch: int) -> Tensor:
    missing = -len(images) % batch
    return torch.cat([images, images[:missing]])


def table(rows: dict[tuple[str, str], list[dict[str, Any]]], arguments: argparse.Namespace) -> str:
    """Markdown of all rows: mean top-1, and the difference from dense with its interval."""
    lines = [
        "# A quarter of the MACs on Fashion-MNIST",
        "",
        f"`python benchmarks/quarter.py`, which says what the rows are. {arguments.images} training images, batches of "
        f"{BATCH}: {arguments.dense_steps}",
        f"steps for the dense network, {arguments.tune_steps} with labels after pruning; without labels "
        f"{arguments.recover_minutes:g} CPU minutes of recovery on {arguments.unlabelled} images.",
        "Top-1 on 10,000 test images in percent, mean over seeds; intervals are of paired differences from dense FP32.",
        "CPU seconds are of one core, on a machine with other work.",
        "",
        "| network | row | seeds | MACs left | top-1 | difference [95%] | over seeds | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (network, name), found in rows.items():
        dense = rows[network, "dense"][: len(found)]
        own, whole = (np.stack([_right(row) for row in each]).astype(float) for each in (found, dense))
        gaps = 100 * (own - whole)
        middle, spread = gaps.mean(), 1.96 * gaps.mean(0).std(ddof=1) / math.sqrt(gaps.shape[1])
        seeds = gaps.mean(1)
        shown = "" if name == "dense" else f"{middle:+.2f} [{middle - spread:+.2f}, {middle + spread:+.2f}]"
        between = "" if name == "dense" else f"{seeds.min():+.2f} to {seeds.max():+.2f}"
        macs = np.mean([row["macs"] / base["macs"] for row, base in zip(found, dense, strict=True)])
        lines.append(
            f"| {network} | {name} | {len(found)} | {macs:.3f} | {100 * own.mean():.2f} | {shown} | {between} | "
            f"{sum(row['cpu_s'] for row in found)} |"
        )
    return "\n".join(lines) + "\n"


def _right(row: dict[str, Any]) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(row["right"]), np.uint8))[:10_000]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--unlabelled", type=int, default=5_000)
    parser.add_argument("--dense-steps", type=int, default=2000)
    parser.add_argument("--tune-steps", type=int, default=2000)
    parser.add_argument("--recover-minutes", type=float, default=4)
    parser.add_argument("--work", default="runs/quarter")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = Data(arguments.images, BATCH)
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for seed in range(arguments.seeds):
        for network in arguments.networks:
            bench = Quarter(network, seed, data, arguments)
            for name in ROWS:
                rows.setdefault((network, name), []).append(bench.row(name))
            ordered = {key: rows[key] for key in sorted(rows, key=lambda key: (key[0] != "resnet", ROWS.index(key[1])))}
            write_text(RESULTS, table(ordered, arguments))


if __name__ == "__main__":
    main()
