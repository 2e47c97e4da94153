"""Ultralytics' own trainer for a pruned detector: it trains the module that it is given instead of building one anew.

Theirs rebuilds the network from its YAML, and halves the averaged weights that it saves. This one keeps the module, and
leaves the averaged weights in it, in float32.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from eightfold.errors import ModelError
from eightfold.extras import require

if TYPE_CHECKING:
    from torch import nn

PURPOSE = "train with Ultralytics"
KNOWN = "8.4.190"
# Arguments of the methods that are replaced.
METHODS = {"__init__": ("cfg", "overrides", "_callbacks"), "get_model": ("cfg", "weights", "verbose"), "final_eval": ()}


def pruned_trainer(network: nn.Module) -> type:
    """A subclass of their `DetectionTrainer` that trains `network` in place: `YOLO("yolov8n.yaml").train(trainer=...)`.

    Mixed precision is off unless asked for: their check of it downloads a network.

    Args:
        network: a `DetectionModel` of theirs, such as `YOLO("yolov8n.yaml").model` after `ef.prune`.

    Raises:
        ModelError: the trainer of the installed version has other methods; or, when training starts, the network has
            another number of classes than the data.
    """
    package = require("ultralytics", PURPOSE)
    base: Any = require("ultralytics.models.yolo.detect", PURPOSE).DetectionTrainer
    _require_known(base, str(package.__version__))

    class PrunedTrainer(base):  # type: ignore[misc]  # theirs has no types
        def __init__(self, cfg: Any = None, overrides: Any = None, _callbacks: Any = None) -> None:
            asked = {"amp": False, **(overrides or {})}
            super().__init__(overrides=asked, _callbacks=_callbacks, **({} if cfg is None else {"cfg": cfg}))

        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
            layers: Any = network.get_submodule("model")
            known, wanted = int(layers[-1].nc), int(self.data["nc"])
            if known != wanted:
                raise ModelError(f"the network has {known} classes and the data {wanted}", allowed="as many")
            return network

        def final_eval(self) -> None:
            network.load_state_dict(self.ema.ema.state_dict())
            super().final_eval()

    return PrunedTrainer


def _require_known(trainer: type, version: str) -> None:
    for name, arguments in METHODS.items():
        method = getattr(trainer, name, None)
        seen = tuple(inspect.signature(method).parameters)[1:] if method is not None else None
        if seen != arguments:
            shown = "no such method" if seen is None else f"{name}({', '.join(seen)})"
            raise ModelError(
                f"the trainer of ultralytics {version} has changed: {shown}",
                allowed=f"{name}({', '.join(arguments)}), as version {KNOWN} has it",
                remedy=f"pip install ultralytics=={KNOWN}, or train with eightfold",
            )
