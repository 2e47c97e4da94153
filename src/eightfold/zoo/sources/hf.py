"""transformers' vision models as a model source, from a local folder (https://github.com/huggingface/transformers)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ModelError, first_line
from eightfold.extras import require
from eightfold.json_types import JsonDict
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.zoo.sources.base import CLASSIFY, RAW_OUTPUTS, LoadedModel, ModelSource, SourceOptions, rest_of, sized

SIDE = 224
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
# transformers' `resample` is PIL's number.
BICUBIC = 3
TASKS = {"ForImageClassification": CLASSIFY, "ForSemanticSegmentation": Task(kind="segment", decode="segment")}


class HuggingFaceSource(ModelSource):
    """`hf:FOLDER`: config.json, model.safetensors and, where it is there, preprocessor_config.json."""

    name = "hf"
    form = "hf:FOLDER"
    gives = "a vision model of transformers, from a local folder: config and safetensors"
    extra = "hf"

    def with_paths(self, text: str, change: Callable[[str], str]) -> str:
        return f"{self.name}:{change(rest_of(text))}"

    def brings_weights(self, text: str) -> bool:
        return True

    def takes_weights(self, text: str) -> bool:
        return False

    def task(self, text: str, size: Size) -> Task:
        return self.load(text, SourceOptions()).task

    def load(self, text: str, options: SourceOptions) -> LoadedModel:
        folder = Path(rest_of(text))
        if not (folder / CONFIG).is_file() or not any((folder / name).is_file() for name in WEIGHTS):
            raise ModelError(
                f"{folder} is no local folder with {CONFIG} and {WEIGHTS[0]}",
                allowed="a folder that save_pretrained() of transformers wrote",
                remedy="nothing is downloaded: save the model to a folder first",
            )
        transformers = require("transformers", "load a model of transformers")
        safetensors = require("safetensors", "load a model of transformers")
        config = _read_json(folder / CONFIG)
        architecture = str(next(iter(config.get("architectures") or [""])))
        factory = getattr(transformers, architecture, None)
        if factory is None:
            raise ModelError(
                f"{folder / CONFIG} names the architecture {architecture!r}",
                allowed="one that the installed transformers has",
            )
        try:
            network = factory.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, RuntimeError, KeyError, safetensors.SafetensorError) as error:
            raise ModelError(
                f"transformers cannot load {folder} ({first_line(error)})", allowed="a complete folder"
            ) from None
        from eightfold.zoo.sources.hf_outputs import Logits

        task = next((task for end, task in TASKS.items() if architecture.endswith(end)), RAW_OUTPUTS)
        names = {int(key): str(name) for key, name in dict(config.get("id2label", {})).items()}
        task = task.model_copy(update={"labels": tuple(names[key] for key in sorted(names))})
        preprocess = sized(_preprocess(folder / PROCESSOR, config), options.size)
        return LoadedModel(text, Logits(network), preprocess, task, brings_weights=True)


def _preprocess(path: Path, config: JsonDict) -> Preprocess:
    """The processor's transform; plain scaling to [0, 1] where there is none."""
    stated = _read_json(path) if path.is_file() else {}
    side = config.get("image_size", SIDE)
    height, width = (side, side) if isinstance(side, int) else side
    size = stated.get("crop_size" if stated.get("do_center_crop") else "size", {})
    if isinstance(size, int):
        size = {"height": size, "width": size}
    height, width = size.get("height", height), size.get("width", width)
    shorter = stated.get("size", {}).get("shortest_edge") if isinstance(stated.get("size"), dict) else None
    crop = bool(stated.get("do_center_crop")) and shorter is not None
    return Preprocess(
        height=height,
        width=width,
        resize="center-crop" if crop else "stretch",
        shorter_side=max(shorter or 0, height, width) if crop else None,
        interpolation="bicubic" if stated.get("resample") == BICUBIC else "bilinear",
        antialias=True,
        scale=stated.get("rescale_factor", 1 / 255),
        mean=tuple(stated.get("image_mean", (0.0,))) if stated.get("do_normalize", True) else (0.0,),
        std=tuple(stated.get("image_std", (1.0,))) if stated.get("do_normalize", True) else (1.0,),
    )


def _read_json(path: Path) -> JsonDict:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path} ({first_line(error)})", allowed="a JSON object") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object", allowed="a JSON object")
    return content
