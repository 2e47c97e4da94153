"""Networks as commands take them: a source, its options, and the images for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eightfold.cli.options import image_size
from eightfold.errors import UsageError, why_unread
from eightfold.json_types import JsonDict, JsonMapping

if TYPE_CHECKING:
    import torch

    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.zoo.sources.base import LoadedModel

SOURCE_HELP = "Network: .onnx file, timm:NAME, ...; see `eightfold sources`."
INPUTS_HELP = "Further arguments of the network, as JSON or a .json file."
# Parameters that several commands share.
Source = Annotated[str, typer.Argument(help=SOURCE_HELP)]
SourceWeights = Annotated[Path | None, typer.Option(help="Trained weights (.safetensors or a plain .pt).")]
SourceClasses = Annotated[int | None, typer.Option(help="Number of outputs. Default: the source's own.")]
SourceSize = Annotated[str | None, typer.Option(help="Image size: SIDE or HEIGHTxWIDTH. Default: the source's own.")]
SourceInputs = Annotated[str | None, typer.Option(help=INPUTS_HELP)]
SourcePreprocess = Annotated[Path | None, typer.Option(help="JSON file of a Preprocess. Default: the source's own.")]
ImagesPreprocess = Annotated[
    Path | None, typer.Option(help="JSON file of a Preprocess for the images. Default: the source's own.")
]


def load_network(
    text: str,
    *,
    weights: Path | None = None,
    classes: int | None = None,
    size: str | None = None,
    inputs: str | None = None,
    constants: JsonMapping | None = None,
    seed: int = 0,
) -> LoadedModel:
    """The network that a command's argument and options name; `constants` are those of inputs of an ONNX file."""
    from eightfold.zoo.sources.base import SourceOptions
    from eightfold.zoo.sources.registry import load_source

    return load_source(
        text,
        SourceOptions(
            num_classes=classes,
            size=None if size is None else image_size(size),
            weights=weights,
            inputs={**json_inputs(inputs), **(constants or {})},
            seed=seed,
        ),
    )


def json_inputs(text: str | None) -> JsonDict:
    """The object in a JSON text or a .json file.

    >>> json_inputs('{"inference": true}')
    {'inference': True}
    """
    if text is None:
        return {}
    allowed = 'an object such as {"inference": true}, or a .json file that holds one'
    try:
        found = json.loads(Path(text).read_text(encoding="utf-8-sig") if text.endswith(".json") else text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--inputs {text} ({why_unread(error)})", allowed=allowed) from None
    except ValueError as error:
        raise UsageError(f"--inputs {text:.60} is not JSON ({error})", allowed=allowed) from None
    if not isinstance(found, dict):
        raise UsageError(f"--inputs {text:.60}", allowed=allowed)
    return found


def preprocess_for(loaded: LoadedModel, path: Path | None) -> Preprocess:
    """The rules in a file at the network's size, or those that its source knows."""
    from eightfold.calib.images.preprocess import Preprocess

    return loaded.preprocess if path is None else Preprocess.load(path).at_size(*loaded.size)


def model_images(source: str | Path | None, preprocess: Preprocess, count: int, seed: int) -> torch.Tensor | tuple[()]:
    """Model-ready images [n, channels, height, width], or nothing where no source is given."""
    if source is None:
        return ()
    import numpy as np
    import torch

    from eightfold.calib.images.images import open_images

    chosen = open_images(source).sample(count, seed=seed)
    return torch.from_numpy(np.stack(list(chosen.prepared(preprocess))))
