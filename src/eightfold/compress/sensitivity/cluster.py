"""Sensitivity on a Ray cluster: every point is a task, and what comes back is the same whichever worker measured it.

The model and the metric travel to the workers by Ray's own serialization; their code, and the files that the metric
reads, must be there. The only module that imports ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from eightfold.compress.sensitivity.curves import CurvePoint, Measure, Spread
from eightfold.errors import ModelError, UsageError
from eightfold.extras import require

RETRIES = 2  # of a point whose worker died


def ray_spread(cluster: str) -> Spread:
    """Measure points on Ray, for `sensitivity_curves(spread=...)`.

    Args:
        cluster: a number of workers to start on this machine, or the address of a cluster: "auto", "ray://HOST:PORT".

    Raises:
        UsageError: no workers.
        MissingExtraError: Ray is not installed.
    """
    if cluster.isdigit() and int(cluster) < 1:
        raise UsageError(f"{cluster} Ray workers", allowed="1 or more, or the address of a cluster")
    ray: Any = require("ray", "measure sensitivity on a cluster")
    return lambda measure, points: _spread(ray, cluster, measure, points)


def _spread(
    ray: Any, cluster: str, measure: Measure, points: Sequence[CurvePoint]
) -> Iterator[tuple[CurvePoint, float]]:
    own = not ray.is_initialized()
    if own:
        _start(ray, cluster)
    try:
        shared, run = ray.put(measure), ray.remote(max_retries=RETRIES)(_measured)
        pending = {run.remote(shared, point): point for point in points}
        while pending:
            (done, *_), _ = ray.wait(list(pending), num_returns=1)
            yield pending.pop(done), _value(ray, done)
    finally:
        if own:
            ray.shutdown()


def _start(ray: Any, cluster: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if cluster.isdigit():
            ray.init(num_cpus=int(cluster), include_dashboard=False, **quiet)
        else:
            ray.init(address=cluster, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"no Ray cluster at {cluster} ({error})", allowed="auto, ray://HOST:PORT, or a number of local workers"
        ) from None


def _measured(measure: Measure, point: CurvePoint) -> float:
    return measure(point)


def _value(ray: Any, done: Any) -> float:
    try:
        return float(ray.get(done))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise ModelError(
            f"a Ray worker died, and {RETRIES} others on the same point ({type(error).__name__})",
            remedy="run the same command again to go on behind the last point; give workers more memory",
        ) from None
