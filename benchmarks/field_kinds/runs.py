"""Recipes: stale results, verdicts that the images cannot show, and dead ends before training."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from eightfold.pipeline.job.dry_run import foresee
from eightfold.pipeline.job.runner import run_steps
from eightfold.pipeline.report.verdicts import AccuracyEvidence, MeasuredMetric, judge_drop
from eightfold.pipeline.run import _job, _steps, preview_run
from eightfold.recipe import recipe_from
from field_kinds import Case, kind, require

# The network's module imports its activation in one of these ways.
IMPORTS = {
    "plain": "import PACKAGE.parts as parts",
    "from": "from PACKAGE.parts import act\nimport PACKAGE.parts as parts",
    "relative": "from . import parts",
    "star": "from PACKAGE.parts import *\nfrom PACKAGE import parts",
    "named": "import importlib\nparts = importlib.import_module('PACKAGE.parts')",
    "computed": "import importlib\nparts = importlib.import_module('PACKAGE' + '.' + 'parts')",
    "late": "class parts:\n    def act():\n        from PACKAGE.parts import act\n        return act()",
}
ACTIVATIONS = ("SiLU", "ReLU", "GELU", "Tanh")
PARTS = f"from torch import nn\n\ndef act():\n    return nn.{ACTIVATIONS[0]}()\n"
NET = """
from torch import nn
{imports}

def build(num_classes=2):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), parts.act(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes)
    )
"""


@contextlib.contextmanager
def project(folder: Path, how: str, package: str) -> Iterator[dict[str, Any]]:
    """A network in two modules, weights and images in `folder`, which is the current one; its recipe."""
    (folder / package).mkdir()
    (folder / package / "__init__.py").touch()
    imports = IMPORTS[how].replace("PACKAGE", package)
    (folder / package / "net.py").write_text(NET.format(imports=imports))
    (folder / package / "parts.py").write_text(PARTS)
    for part, label in product(("train", "test"), ("a", "b")):
        (folder / "data" / part / label).mkdir(parents=True)
        cv2.imwrite(str(folder / "data" / part / label / "0.png"), np.full((8, 8, 3), 9 * len(part), np.uint8))
    state = {"0.weight": torch.ones(16, 3, 3, 3), "0.bias": torch.zeros(16), "4.weight": torch.ones(2, 16)}
    save_file({**state, "4.bias": torch.zeros(2)}, str(folder / "weights.safetensors"))
    torch.save({**state, "4.bias": torch.zeros(2)}, folder / "weights.pt")
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield {
            "name": "own",
            "output": "run",
            "model": {"source": f"{package}.net:build", "weights": "weights.safetensors"},
            "data": {"source": "data"},
            "preprocess": {"height": 8, "width": 8},
            "compress": {"score": "l2"},
            "export": {"batches": [1]},
            "quantize": {"targets": ["cpu-x86"]},
            "bench": {"threads": 1},
        }
    finally:
        sys.path.remove(str(folder))
        os.chdir(before)


def finish(recipe: dict[str, Any]) -> None:
    """A finished run of the recipe, with files of its own making in place of results."""

    def pretend(step: Any) -> Any:
        def write(_: Path) -> str:
            for name in step.outputs:
                Path("run", name).parent.mkdir(parents=True, exist_ok=True)
                Path("run", name).write_text(step.name)
            return ""

        return dataclasses.replace(step, action=write)

    run_steps(Path("run"), [pretend(step) for step in _steps(_job(recipe_from(recipe), "run"))], lambda _: None)
    states = {step.state for step in foresee(Path("run"), _steps(_job(recipe_from(recipe), "run")))}
    require(states == {"up to date"}, f"a finished run is {states}")


def would_run(recipe: dict[str, Any]) -> set[str]:
    return {step.name for step in preview_run(recipe_from(recipe), output="run") if step.state == "would run"}


@kind("code that a network imports", entry="A")
def stale_code(random_state: Random) -> Iterator[Case]:
    for number, (how, file) in enumerate(product(IMPORTS, ("net.py", "parts.py", "__init__.py"))):
        yield Case(
            f"{how} import, {file} changed",
            _stale_code(how, file, f"pack{number}", random_state.choice(ACTIVATIONS[1:])),
        )


def _stale_code(how: str, file: str, package: str, activation: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        with project(folder, how, package) as recipe:
            finish(recipe)
            path = Path(package, file)
            text = path.read_text().replace(ACTIVATIONS[0], activation)
            path.write_text(text + ("" if file == "parts.py" else "\nCHANGED = 1\n"))
            stale = {"load weights", "prune", "export baseline", "export pruned"} - would_run(recipe)
            require(not stale, f"up to date: {', '.join(sorted(stale))}")

    return run


@kind("weights and images that change in place", entry="A")
def stale_files(random_state: Random) -> Iterator[Case]:
    for number, (suffix, change) in enumerate(
        product(("safetensors", "pt"), ("one value", "sign", "touch only", "rename"))
    ):
        yield Case(f"{suffix}, {change}", _stale_weights(suffix, change, f"weighed{number}"))
    for number, change in enumerate(("pixels", "moved to another label", "added", "removed", "through a link")):
        yield Case(f"image {change}", _stale_images(change, f"seen{number}"))


def _stale_weights(suffix: str, change: str, package: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        with project(folder, "plain", package) as recipe:
            path = Path(f"weights.{suffix}")
            recipe["model"]["weights"] = str(path)
            finish(recipe)
            if change == "touch only":
                os.utime(path, (0, 0))
            elif change == "rename":
                path = path.rename(f"other.{suffix}")
                recipe["model"]["weights"] = str(path)
            else:
                _change(path, change)
            wanted = change not in ("touch only", "rename")
            found = "load weights" in would_run(recipe)
            require(found is wanted, f"the weights' step is {'' if found else 'not '}done again")

    return run


def _change(path: Path, change: str) -> None:
    state = load_file(str(path)) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    state["4.weight"] = (
        -state["4.weight"] if change == "sign" else state["4.weight"].index_fill(1, torch.tensor(3), 0.5)
    )
    save_file(state, str(path)) if path.suffix == ".safetensors" else torch.save(state, path)


def _stale_images(change: str, package: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        with project(folder, "plain", package) as recipe:
            train = Path("data/train")
            if change == "through a link":
                train.rename("elsewhere")
                train.symlink_to(folder / "elsewhere", target_is_directory=True)
            finish(recipe)
            image = train / "a" / "0.png"
            if change == "removed":
                (train / "b" / "0.png").unlink()
                (train / "b" / "1.png").write_bytes(image.read_bytes())
            elif change == "added":
                (train / "a" / "1.png").write_bytes(image.read_bytes())
            elif change == "moved to another label":
                image.rename(train / "b" / "moved.png")
                (train / "a" / "kept.png").write_bytes((train / "b" / "0.png").read_bytes())
            else:
                cv2.imwrite(str(image), np.full((8, 8, 3), 200, np.uint8))
            require("data" in would_run(recipe), "the images' step is up to date")

    return run


@kind("verdicts on accuracy", entry="B")
def verdicts(random_state: Random) -> Iterator[Case]:
    for classes, images, limit in product((2, 10, 1000), (1, 2, 10, 50, 1000, 20_000), (0.5, 1.0, 3.0)):
        for accuracy, drop in product((1 / classes, 0.98), (0.0, 0.2)):
            name = f"{classes} classes, {images} images, {accuracy:.1%} less {drop:.0%}, limit {limit:g}"
            seed = random_state.randrange(1 << 30)
            yield Case(name, _verdict(classes, images, limit, accuracy, drop, seed))


def _verdict(
    classes: int, images: int, limit: float, accuracy: float, drop: float, seed: int
) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        rng = np.random.default_rng(seed)
        before = rng.random(images) < accuracy
        after = before & (rng.random(images) >= drop)
        measured = [MeasuredMetric(100 * each.mean(), tuple(100.0 * each)) for each in (before, after)]
        found = judge_drop("x", AccuracyEvidence(*measured, images, 100 / classes, "top-1"), limit, "next")
        if accuracy < 0.5 or (classes == 2 and accuracy == 0.5) or images <= 10:
            # A clear loss may be shown by ten images; that the accuracy holds may not.
            require(found.passed is not True, f"{found.passed}: {found.seen}")
        elif images == 20_000:
            require(found.passed is (drop == 0), f"{found.passed}: {found.seen}")
        else:
            require(found.passed is not (drop > 0), f"{found.passed}: {found.seen}")
        require(found.passed is True or bool(found.remedy), "no next thing to try")

    return run


WRONG_RECIPES: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "no data folder": ({"data": {"source": "dato"}}, "did you mean data?"),
    "a file as data": ({"data": {"source": "weights.pt"}}, "is a file"),
    "data without parts": ({"data": {"source": "."}}, "train/LABEL"),
    "no module": ({"model": {"source": "nowhere:build", "weights": "weights.pt"}}, "cannot find nowhere:build"),
    "no function": ({"model": {"source": "{package}.net:biuld", "weights": "weights.pt"}}, "did you mean 'build'?"),
    "no weights": ({"model": {"source": "{package}.net:build", "weights": "w.pt"}}, "no weights file w.pt"),
    "no score": ({"compress": {"score": "l3"}}, "unknown score 'l3'"),
    "no rule": ({"compress": {"rule": "unifrom"}}, "unknown rule 'unifrom'"),
    "no method": ({"calibrate": {"method": "entropie"}}, "calibrate.method"),
    "no task": ({"task": {"kind": "classfy"}}, "classify"),
    "negative limit": ({"limits": {"max_drop": -1}}, "limits.max_drop"),
    "engine for a board": ({"engines": {"target": "rtx:sm87"}}, "Orin"),
    "engine without a GPU": ({"engines": {"target": "tensorrt:10.3", "precisions": ["fp16"], "batches": [1]}}, "board"),
}


@kind("recipes that cannot end well", entry="16b")
def dead_ends(random_state: Random) -> Iterator[Case]:
    for number, (name, (changes, words)) in enumerate(WRONG_RECIPES.items()):
        yield Case(name, _dead_end(changes, f"recipes{number}"), expected="refused", words=words)


def _dead_end(changes: dict[str, dict[str, Any]], package: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        with project(folder, "plain", package) as recipe:
            for section, values in changes.items():
                values = {
                    key: str(value).replace("{package}", package) if key == "source" else value
                    for key, value in values.items()
                }
                recipe[section] = {**recipe.get(section, {}), **values}
            preview_run(recipe_from(recipe), output="run")

    return run
