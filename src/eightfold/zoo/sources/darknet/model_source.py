"""Darknet's networks as a model source. Imports torch in its functions only, as every source in the registry."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import UsageError
from eightfold.extras import require
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.zoo.sources.base import LoadedModel, ModelSource, SourceOptions, SourceWarning, rest_of

if TYPE_CHECKING:
    from eightfold.zoo.sources.darknet.cfg import Cfg

# Darknet's letterbox fills with 0.5.
GREY = 127


class DarknetSource(ModelSource):
    """`darknet:FILE.cfg` with random weights, or `darknet:FILE.cfg+FILE.weights`."""

    name = "darknet"
    form = "darknet:FILE.cfg[+FILE.weights]"
    gives = "a network of Darknet; detectors by their raw heads"
    extra = "compress"

    def with_paths(self, text: str, change: Callable[[str], str]) -> str:
        cfg, plus, weights = rest_of(text).partition(".cfg+")
        return f"{self.name}:" + (f"{change(f'{cfg}.cfg')}+{change(weights)}" if plus else change(cfg))

    def brings_weights(self, text: str) -> bool:
        return ".cfg+" in text

    def takes_weights(self, text: str) -> bool:
        return not self.brings_weights(text)

    def task(self, text: str, size: Size) -> Task:
        require("torch", "read a Darknet network")
        from eightfold.zoo.sources.darknet.cfg import read_cfg
        from eightfold.zoo.sources.darknet.source import darknet_task, split_source

        return darknet_task(_at_size(read_cfg(split_source(rest_of(text))[0]), size))

    def load(self, text: str, options: SourceOptions) -> LoadedModel:
        require("torch", "build a Darknet network")
        from eightfold.zoo.sources.darknet.source import class_count, darknet_task, open_darknet, split_source
        from eightfold.zoo.sources.darknet.write import write_pair

        opened = open_darknet(rest_of(text), seed=options.seed, size=options.size)
        known = class_count(opened.network)
        if options.num_classes is not None and known not in (None, options.num_classes):
            raise UsageError(
                f"{options.num_classes} classes for {text}",
                allowed=f"{known}, as its cfg has",
                remedy="change classes= and filters= in the cfg",
            )
        if not opened.whole and options.weights is None:
            warnings.warn(opened.origin, SourceWarning, stacklevel=4)
        task = darknet_task(opened.network.cfg)
        preprocess = _preprocess(opened.network.size, task)
        stem = split_source(rest_of(text))[0].stem
        return LoadedModel(
            text,
            opened.network,
            preprocess,
            task,
            brings_weights=self.brings_weights(text),
            write_native=lambda folder: write_pair(opened.network, folder / stem),
        )


def _at_size(cfg: Cfg, size: Size) -> Cfg:
    return replace(cfg, net=cfg.net.with_values(height=size[0], width=size[1]))


def _preprocess(shape: tuple[int, int, int], task: Task) -> Preprocess:
    """RGB from 0 to 1; a letterbox for detectors, the centre for classifiers, as `darknet detect` and `classify` do."""
    channels, height, width = shape
    color = {"color": "grey"} if channels == 1 else {}
    resize = {"resize": "center-crop", "shorter_side": min(height, width)}
    if task.kind != "classify":
        resize = {"resize": "letterbox", "pad_value": GREY}
    return Preprocess.model_validate({"height": height, "width": width, "channels": channels, **color, **resize})
