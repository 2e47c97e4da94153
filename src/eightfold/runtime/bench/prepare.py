"""From a candidate to the call that is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from eightfold.arrays import Array
from eightfold.calib.images.resize import Pixels
from eightfold.errors import UsageError
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.runtime.backends import BACKENDS, open_session
from eightfold.runtime.backends.base import Scope, Session, SessionOptions, Slot
from eightfold.runtime.bench.candidates import Candidate
from eightfold.runtime.bench.placement import pin_thread, restored_affinity
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.postprocess import decoder_of

# What cameras give most often.
FRAME_HEIGHT, FRAME_WIDTH = 1080, 1920


@dataclass(frozen=True)
class PreparedCandidate:
    """A candidate with its model loaded, ready to be called again and again.

    Attributes:
        calls: one for each request that may be in flight, with buffers of its own.
        cores: of its threads; empty where the kernel chooses.
        caller_cores: of them, those for the thread that calls it.
    """

    candidate: Candidate
    session: Session
    calls: tuple[Callable[[], object], ...]
    scope: Scope
    cores: tuple[int, ...] = ()
    caller_cores: tuple[int, ...] = ()


def prepare_candidate(candidate: Candidate, options: SessionOptions, end_to_end: bool, seed: int) -> PreparedCandidate:
    """Load a candidate.

    Args:
        end_to_end: the call goes from decoded frames to decoded answers, instead of from tensors to tensors.
        seed: of the inputs, which are noise.
    """
    options = replace(options, precision=candidate.precision, threads=candidate.threads or options.threads)
    alone = options.requests == 1
    cores = options.cores[: options.threads] if alone else options.cores
    with restored_affinity():
        pin_thread(cores)  # for the threads that the backend starts
        session = open_session(candidate.path, candidate.backend, replace(options, cores=cores))
    # A caller that computes has a core of its own; one that hands over to pinned threads may wait on any of them.
    caller = cores[:1] if alone and session.pinned and BACKENDS[candidate.backend].caller_computes else cores
    made = [_call(candidate, session, end_to_end, seed) for _ in range(options.requests)]
    scope: Scope = "end-to-end" if end_to_end else session.scope
    return PreparedCandidate(candidate, session, tuple(made), scope, cores, caller)


def _call(candidate: Candidate, session: Session, end_to_end: bool, seed: int) -> Callable[[], object]:
    slot, random = session.new_slot(), np.random.default_rng(seed)
    if not end_to_end:
        # Zeros can be faster than any picture: denormals, sparsity, power.
        for spec in session.inputs:
            np.copyto(slot.inputs[spec.name], _noise(spec, random))
        return slot.run
    if candidate.bundle is None:
        raise UsageError(f"{candidate.name} comes from no bundle", allowed="bundles, to measure end to end")
    how = candidate.bundle.manifest.preprocess_of(candidate.bundle.artifact(candidate.artifact))
    channels = how.channels if how.as_stored else 3
    shape = (FRAME_HEIGHT, FRAME_WIDTH, channels)
    frame = random.integers(0, how.largest_pixel + 1, shape).astype(how.pixels)
    return _frames_to_answers(candidate.bundle, candidate.artifact, slot, frame)


def _frames_to_answers(bundle: Bundle, artifact: str, slot: Slot, frame: Pixels) -> Callable[[], object]:
    preprocess = bundle.manifest.preprocess_of(bundle.artifact(artifact))
    decode = decoder_of(bundle.manifest.task)
    if len(slot.inputs) != 1:
        raise UsageError(f"{artifact} has {len(slot.inputs)} inputs", allowed="one image input, to measure end to end")
    (rows,) = slot.inputs.values()
    placements = [preprocess.place(*frame.shape[:2])] * len(rows)

    def call() -> object:
        for row in rows:
            preprocess(frame, row)
        slot.run()
        return decode(slot.outputs, placements)

    return call


def _noise(spec: TensorSpec, random: np.random.Generator) -> Array:
    if spec.dtype.startswith("float"):
        return np.asarray(random.standard_normal(spec.shape)).astype(spec.dtype)
    high = 2 if spec.dtype == "bool" else 100
    return np.asarray(random.integers(0, high, spec.shape)).astype(spec.dtype)
