"""The first line about a finished run: good, bad or not shown, with the numbers that decide it."""

from __future__ import annotations

from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.report.headlines import (
    best_curve,
    best_name,
    leading_label,
    metric_of,
    share_of_backend,
    speedup_of,
)
from eightfold.pipeline.run import RunResult
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.runtime.report.report_content import Check


def bad_checks(result: RunResult) -> tuple[Check, ...]:
    """The promises that do not hold, and those that are not shown and whose estimate misses the limit."""
    return tuple(check for check in result.checks if check.passed is False or check.over_limit)


def verdict_line(result: RunResult) -> str:
    """One line: "good: ..." where every promise holds, "bad: ..." where one does not, else "not shown: ...".

    A promise whose estimate misses its limit counts as bad, though the test images are too few to be sure.
    """
    job = result.job
    table = LatencyTable.load(job.path(at.LATENCY))
    best, batch = best_curve(job, table), min(job.recipe.export.batches)
    name = best_name(job, table, best)
    speed = speedup_of(table, name, batch)
    shown = f"{name} is {speed.value:.2f}x as fast at batch {batch}" if speed else best
    if speed and (same := share_of_backend(job, table, name, batch)):
        shown += f" ({same})"
    shown += f", {leading_label(job)} {metric_of(job, f'{best}-b{batch}'):.1f}%"
    if unpruned := _unpruned(job):
        shown = f"{unpruned}; {shown}"
    checks = result.checks
    failed = bad_checks(result)
    if failed:
        answers = (f"{check.name}: {'probably not' if check.over_limit else 'no'}, {check.seen}" for check in failed)
        return f"bad: {shown}; " + "; ".join(answers)
    unsure = [check for check in checks if check.passed is None]
    if unsure:
        return f"not shown: {shown}; " + "; ".join(f"{check.name}: {check.seen}" for check in unsure[:2])
    return f"good: {shown}"


def _unpruned(job: Job) -> str:
    """Words for a network of which nothing could go, though less was asked for; nothing for others."""
    from eightfold.compress.plan.plan import PrunePlan

    plan, section = PrunePlan.load(job.path(at.PLAN)), job.recipe.compress
    wanted = section.keep_ratio < 1 or section.max_macs or section.max_params or section.remove_blocks
    if not wanted or plan.groups or plan.removed_blocks:
        return ""
    return (
        f"the network is small already, nothing was pruned (groups of up to {plan.multiple} channels stay whole; "
        f"eightfold inspect tells what keeps the others)"
    )
