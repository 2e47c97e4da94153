"""The part that tasks with a picture of the truth for each image have in common: their data, and a search's score."""

from __future__ import annotations

import re
import shutil
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BundleError, ImageError, RecipeError
from eightfold.export.int8.score import Score
from eightfold.files import atomic_directory, digest_of, write_text
from eightfold.recipe import Recipe
from eightfold.recipe_sections import DataSection
from eightfold.runtime.postprocess import decoder_of
from eightfold.tasks.base import VisionTask
from eightfold.tasks.dense.masked_images import CLASSES
from eightfold.tasks.dense.picture_pairs import IMAGES
from eightfold.tasks.networks import onnx_network

if TYPE_CHECKING:
    import torch

    from eightfold.compress.types import Loss

USUAL_SIDE = 128


class DenseTask(VisionTask):
    """Folders images/ and `truths`/ of the same names, or generated images.

    Attributes:
        decode: the only decoder.
        gives: the network's deed, as messages have it.
        plural: the pictures of the truth, as messages have them; `PLURAL:SIDE` is the generated data set.
        truths: their folder.
        leading: name of the leading metric for people.
    """

    decode: ClassVar[str]
    gives: ClassVar[str]
    plural: ClassVar[str]
    truths: ClassVar[str]
    leading: ClassVar[str]

    @abstractmethod
    def generate(self, directory: Path, *, train: int, test: int, side: int, seed: int) -> Path:
        """Write a generated data set."""

    @abstractmethod
    def checked_classes(self, source: Path) -> tuple[str, ...]:
        """The classes of the user's data set, for a file beside it; raises ImageError where a part is not whole."""

    def check(self, recipe: Recipe) -> None:
        if self.section.decode not in ("", self.decode):
            raise RecipeError(
                f"task.decode is {self.section.decode!r} for a network that {self.gives}",
                allowed=self.decode,
                remedy="leave it out",
            )
        if recipe.export.decode:
            raise RecipeError(f"export.decode for {self.plural}", allowed="networks that detect", remedy="leave it out")
        try:
            decoder_of(self.outputs_mean(()))
        except BundleError as error:
            raise RecipeError(f"task.options: {error.seen}", allowed=error.allowed) from None

    def data_digest(self, data: DataSection) -> str:
        return "" if self._generated(data) else digest_of(self._folder(data)) or ""

    def write_data(self, data: DataSection, directory: Path, *, seed: int) -> None:
        if generated := self._generated(data):
            side = int(generated[1] or USUAL_SIDE)
            self.generate(directory, train=data.train_images, test=data.test_images, side=side, seed=seed)
            return
        source = self._folder(data)
        classes = self.checked_classes(source)
        with atomic_directory(directory) as temporary:
            for part in ("train", "test"):
                shutil.copytree(source / part, temporary / part)
            if classes:
                write_text(temporary / CLASSES, "\n".join(classes) + "\n")

    def _generated(self, data: DataSection) -> re.Match[str] | None:
        return re.fullmatch(rf"{self.plural}(?::(\d+))?", data.source)

    def _folder(self, data: DataSection) -> Path:
        if not Path(data.source).is_dir():
            raise ImageError(
                f"no folder of images with {self.plural} at {data.source}",
                allowed=f"train/ and test/ with {IMAGES}/* and {self.truths}/* in each, "
                f"or {self.plural}:SIDE for generated ones",
            )
        return Path(data.source)

    def supervision(self, images: ImageSet) -> tuple[Loss, torch.Tensor] | None:
        """None: the truth follows the preprocessing, which scores by gradient do not hand on."""
        return None

    def score(self, images: ImageSet, preprocess: Preprocess, reference: Path) -> Score:
        task = self.outputs_mean(images.classes)

        def of(path: Path) -> float:
            return 100 * self.evaluate(onnx_network(path, preprocess, task), images)[self.metrics[0]]

        return Score(self.leading, "%", of, data=images.digest() + preprocess.digest() + task.model_dump_json())
