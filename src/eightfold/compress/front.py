"""Planning, pruning and inspection of a network in any form: a torch module, or the path of an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, overload

from torch import nn

from eightfold.compress.inspection import ModelInspection, inspect_module
from eightfold.compress.onnx.prune_file import PrunedFile, apply_plan_file, inspect_file, plan_file, prune_file
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan_pruning import plan_module
from eightfold.compress.prune import Pruned, prune_module
from eightfold.compress.surgery.surgery import PruneReport, apply_plan_to_module
from eightfold.compress.types import ExampleInputs
from eightfold.errors import UsageError
from eightfold.files import PathLike


def plan_pruning(model: nn.Module | PathLike, example_inputs: ExampleInputs | None = None, **options: Any) -> PrunePlan:
    """Decide which channels of a network stay. The network is left untouched.

    Args:
        model: a torch module, or the path of an ONNX file, whose initializers are then meant by parameter names and
            whose Add nodes by residual blocks.
        example_inputs: what a module is called with: a tensor, a tuple of arguments, or a dictionary of keywords; a
            list of tuples and dictionaries is several calls, for heads that one call does not reach. None for a file.
        rule: how scores become kept channels: "uniform" (the same share of every group), "global" (one threshold over
            scores divided by their group's mean), "normal", "regular", "shortcut", "slim", "layer", "layer_channel":
            see `eightfold.compress.plan.selection_rules`; "measured" (widths by measured output error on `images`, at
            the multiply-accumulates of the uniform plan or within the budget).
        score: importance criterion: a name of `eightfold.compress.criteria.scores.CRITERIA` (of weights: "l2", "l1",
            "bn_scale", "lamp", "fpgm", "group_l2", "random"; of images: "lsq", "activation_mean"; of a loss: "taylor",
            "hessian_diag"), or a function of `Evidence`.
        keep_ratio: share of the channels that stays.
        multiple: every convolution and linear width becomes a multiple of this. Groups narrower than it stay whole.
            "auto" measures the width step of `target` on this machine and takes that, never less than 8.
        ignore: parameter names (with wildcards) whose groups stay whole.
        keep: parameter or module names (with wildcards) -> keep ratio of their group, whatever the rule says, such as
            {"layer3.*.conv2": 0.4}; the last match counts.
        max_macs: a budget of multiply-accumulates instead of `keep_ratio`: a number, or, up to 1, a share of the
            model's own. The plan keeps as much as fits.
        max_params: the same for parameters; with both, both hold.
        latency: a budget of measured latency instead of `keep_ratio`: "0.5x" of the network's own, or "12ms". An
            integer program over the layers' measured latencies finds the counts, in whole blocks of the device; with
            the rule "measured", output errors decide, else the score.
        target: where the budget holds: "cpu-x86" or "cpu-arm" (onnxruntime on this processor; the default is this
            machine's) or "openvino"; several with commas; for other targets a profile or a roofline estimates.
        precision, batch, threads: of that budget: "fp32", "int8", or both with a comma; images per call; the physical
            cores by default. "mixed" chooses, on `images`, which layers stay in float where the others are INT8.
        target_weights: of several targets and precisions: their weighted mean share is limited instead of each.
        memory, energy: measured budgets beside that of latency: "0.5x", "64MB", "20mJ" per call.
        profile: latencies of layers that `eightfold profile` wrote (several files with commas); the user's cache by
            default.
        rounds: steps to that budget: after each, batch norms are re-estimated on `images`, if any, and channels are
            scored anew on the network as it is then.
        rounding: of counts to the multiple: "nearest", "up" or "down".
        layer_keep: for "slim": the least share of a layer.
        merge: for "slim": how coupled layers agree: "union", "intersection", "least" or "most".
        ranges: stretches of the network, in groups by execution order, each with a pool and a keep ratio of its own.
        remove_blocks: residual blocks to take out first: how many, or their module paths; of a module with `latency`
            and `images`, ("auto",) lets the integer program choose them. Budgets that are shares are of the model
            without them.
        block_score: which go first: those that contribute least ("contribution", measured on `images`), that a linear
            map of their input replaces best ("recoverability", likewise), or whose last batch norm has the smallest
            scales ("bn_scale").
        layer_norms: prune channels that layer norms take their mean and variance over as well, such as the width of a
            transformer. The norms change with them: least-squares compensation re-fits them, or training does.
        images: for scores that look at images: one tensor [n, channels, height, width], or batches of model inputs.
        targets: for scores that need a loss: labels [n] beside a tensor of images, or one target for each batch.
        loss: (output, target) -> scalar tensor.
        seed: for what is random.
        graph: the result of `trace`, when it is at hand.
        size, preprocess, count: of a file, see `prune`.

    Raises:
        TraceError: the model does not run on the inputs.
        UnknownNameError: rule or score.
        UsageError: the score needs images or a loss, blocks need images to be ranked, or a module has no inputs.
    """
    if isinstance(model, str | Path):
        return plan_file(model, example_inputs, **options)
    return plan_module(model, _of_module(example_inputs), **options)


@overload
def prune(model: nn.Module, example_inputs: ExampleInputs, **options: Any) -> Pruned: ...
@overload
def prune(
    model: PathLike, example_inputs: ExampleInputs | None = None, *, output: PathLike, **options: Any
) -> PrunedFile: ...
def prune(model: nn.Module | PathLike, example_inputs: ExampleInputs | None = None, **options: Any) -> Pruned:
    """Prune a torch module in place, or an ONNX file into another one, and make up for what was removed if asked,
    without labels and without training.

    Args:
        model: a torch module, or the path of an ONNX file.
        example_inputs: what a module is called with. None for a file, which says itself what it takes.
        compensation: "none", "bn_beta" (of modules), "mean" or "lsq"; the last keeps most of the accuracy (see
            `compensate`).
        images: calibration images for compensation and for scores that look at images: one tensor
            [n, channels, height, width], or batches of model inputs; for a file, a folder as well. 256 are plenty.
        memory_mb: what activations may take during "lsq".
        output: of a file, where the result goes: an .onnx file, or a folder for the graph, the plan and `source.json`.
        size: of a file, (height, width) for its dynamic dimensions.
        preprocess: of a file, how an image of a folder becomes its input.
        count: of a file, how many images of a folder to use.
        options: as `plan_pruning` takes them: rule, score, keep_ratio, max_macs, multiple, ...

    Example:
        >>> import torch, torchvision, eightfold as ef
        >>> model = torchvision.models.resnet18(weights=None)
        >>> images = torch.rand(8, 3, 64, 64)
        >>> done = ef.prune(model, images[:1], keep_ratio=0.5, compensation="bn_beta", images=images)
        >>> model.layer1[0].conv1.out_channels
        32
    """
    if isinstance(model, str | Path):
        return prune_file(model, example_inputs, **options)
    return prune_module(model, _of_module(example_inputs), **options)


@overload
def apply_plan(model: nn.Module, plan: PrunePlan, **options: Any) -> PruneReport: ...
@overload
def apply_plan(model: PathLike, plan: PrunePlan, *, output: PathLike, **options: Any) -> Path: ...
def apply_plan(model: nn.Module | PathLike, plan: PrunePlan, **options: Any) -> PruneReport | Path:
    """Apply a plan to a module in place, or to an ONNX file of the same network (another batch, size or training).

    Parameters of a module keep their identity (tied weights stay tied, an optimizer keeps its references), and with
    `optimizer` given, its per-parameter state (momentum, second moments) loses the same channels.

    Args:
        model: a torch module, or the path of an ONNX file.
        plan: made for a network of the same parameter names and shapes.
        options: `optimizer` of a module; `output` (an .onnx file or a folder) and `size` of a file.

    Raises:
        PlanMismatchError: another network; names the first tensor that differs, and both shapes.
    """
    if isinstance(model, str | Path):
        return apply_plan_file(model, plan, **options)
    return apply_plan_to_module(model, plan, **options)


def inspect_model(
    model: nn.Module | PathLike, example_inputs: ExampleInputs | None = None, **options: Any
) -> ModelInspection:
    """Trace a network and tell its parameters, MACs, their share by child module or node, groups and what is frozen.

    Args:
        model: a torch module, or the path of an ONNX file.
        example_inputs: what a module is called with. None for a file.
        options: `multiple`, and `size` of a file.

    Raises:
        TraceError: the network does not run on the inputs.
    """
    if isinstance(model, str | Path):
        return inspect_file(model, **options)
    return inspect_module(model, _of_module(example_inputs), **options)


def _of_module(example_inputs: ExampleInputs | None) -> ExampleInputs:
    if example_inputs is None:
        raise UsageError(
            "no example inputs for a torch module",
            allowed="a tensor, a tuple of arguments, or a dictionary of keywords",
            remedy="pass example_inputs=",
        )
    return example_inputs
