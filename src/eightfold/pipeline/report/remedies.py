"""Next recipe key to change if a limit of a run is missed."""

from __future__ import annotations

from eightfold.pipeline.job.job import Job


def keep_accuracy(job: Job) -> str:
    """For a pruned network that lost too much."""
    section = job.recipe.compress
    if section.compensate != "lsq":
        return "set compress.compensate: lsq, which re-fits the layers on training images without labels"
    if section.finetune.epochs == 0 and job.task.trains:
        return "set compress.finetune.epochs: 3, or more"
    if section.keep_ratio < 1:
        return f"raise compress.keep_ratio from {section.keep_ratio:g}, or name the layers to spare in compress.ignore"
    return "nothing was to be pruned: report this as a defect"


def keep_int8_accuracy(job: Job) -> str:
    """For INT8 that lost too much."""
    section, calibrate = job.recipe.quantize, job.recipe.calibrate
    if section.max_drop is None:
        return f"set quantize.max_drop: {job.recipe.limits.max_drop:g}, which gives the worst layers back to float"
    if not section.equalize:
        return "set quantize.equalize: true"
    if section.bias_correction == "none":
        return "set quantize.bias_correction: empirical"
    return f"calibrate on more images than {calibrate.images}, or by another method than {calibrate.method}"


def gain_speed(job: Job, precision: str) -> str:
    """For an artifact that is not fast enough on this machine."""
    if precision == "int8" and job.recipe.quantize.form != "fastest":
        return "set quantize.form: fastest, which times the forms of INT8 and keeps the fastest"
    ratio = job.recipe.compress.keep_ratio
    return (
        f"lower compress.keep_ratio from {ratio:g}, or measure where it is to run: eightfold bench BUNDLE --device "
        "ssh://HOST"
    )
