"""The models of one choice by batch size, each opened when it is first needed."""

from __future__ import annotations

import threading
from dataclasses import replace

from eightfold.errors import BundleError, UsageError
from eightfold.runtime.backends import open_session
from eightfold.runtime.backends.base import Session, SessionOptions
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Artifact
from eightfold.runtime.predict.pool import SlotPool
from eightfold.runtime.predict.select_artifact import SelectedArtifact


class ModelPools(dict[int, SlotPool]):
    """Batch size -> slots of its model. Safe to share between threads.

    A dictionary, because a look-up of what is open is on the way of every request.

    Args:
        limit: requests that may run at once on each model.
    """

    def __init__(self, bundle: Bundle, choice: SelectedArtifact, options: SessionOptions, limit: int) -> None:
        super().__init__()
        self._bundle, self._choice, self._options, self._limit = bundle, choice, options, limit
        self._lock = threading.Lock()
        self._closed = False

    def __missing__(self, batch: int) -> SlotPool:
        with self._lock:
            check_open(self._closed)
            if batch not in self:
                self[batch] = SlotPool(self._opened(batch), self._limit)
            return self[batch]

    def close(self) -> None:
        """Release the models; a look-up raises UsageError afterwards."""
        with self._lock:
            self._closed = True
            pools = list(self.values())
            self.clear()
        for pool in pools:
            pool.session.close()

    def _opened(self, batch: int) -> Session:
        artifact = next(each for each in self._choice.artifacts if each.batch == batch)
        path = self._bundle.artifact_path(artifact)
        session = open_session(path, self._choice.backend, replace(self._options, precision=artifact.precision))
        _check_same(artifact, session)
        return session


def check_open(closed: bool) -> None:
    """Raise UsageError if the predictor was closed."""
    if closed:
        raise UsageError("this predictor is closed", allowed="use inside its 'with' block")


def _check_same(artifact: Artifact, session: Session) -> None:
    """Preprocessing and decoding go by the manifest: it has to be right about the tensors."""
    stated = {spec.name: spec for spec in (*artifact.inputs, *artifact.outputs)}
    if stated != {spec.name: spec for spec in (*session.inputs, *session.outputs)}:
        raise BundleError(
            f"{artifact.path} has other inputs or outputs than the manifest",
            allowed=", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in stated.values()),
            remedy="make the bundle again",
        )
