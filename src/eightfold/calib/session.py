"""Running a graph to see its activations, in onnxruntime, with bounded memory.

Where the graph allows it, the batch axis is made free, so that any number of rows can be run at a time. A graph that
bakes its batch size in is run at that size; its last batch is filled up, and what was filled up is not shown.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.arrays import Array
from eightfold.errors import CalibrationError, first_line
from eightfold.extras import require
from eightfold.onnx_graph.change_batch import loosen_batch
from eightfold.onnx_graph.graph import SHAPE_INPUT, ModelGraph

if TYPE_CHECKING:
    import onnx

MAX_BYTES = 32 << 20  # of activations held at a time, where one row has fewer: more is no faster
# Of one row's activations held at a time. Beyond it the network runs once for each part of them, in a session with
# weights of its own.
MAX_ROW_BYTES = 512 << 20
CLOSE = 1e-3  # how near a freed graph's answer must be to the graph's own
Tensor = Array


@dataclass(frozen=True, eq=False)
class _Kept:
    """Tensors that a session writes its answers to."""

    binding: Any
    tensors: list[Tensor]

    @classmethod
    def of(cls, session: Any, names: Sequence[str], tensors: list[Tensor]) -> _Kept:
        binding = session.io_binding()
        for name, tensor in zip(names, tensors, strict=True):
            binding.bind_output(name, "cpu", 0, tensor.dtype.type, tensor.shape, tensor.ctypes.data)
        return cls(binding, tensors)


@dataclass(frozen=True, eq=False)
class Runner:
    """Runs rows through a graph. `parts` are sessions that each give some of the tensors; `rows` go in at a time.

    With `reuse`, tensors are overwritten by the next run: new memory for each would take longer than the values do.
    """

    input_name: str
    parts: tuple[tuple[Any, tuple[str, ...]], ...]
    rows: int
    fixed: bool
    reuse: bool = False
    _kept: dict[tuple[int, ...], _Kept] = field(default_factory=dict)

    def __call__(self, rows: Sequence[Tensor]) -> Iterator[dict[str, Tensor]]:
        """The activations for at most `rows` rows, by tensor name, a part at a time."""
        used = len(rows)
        batch = np.stack([rows[i % used] for i in range(self.rows)] if self.fixed else rows)
        for session, names in self.parts:
            # Nothing here holds on to what was yielded: two batches of activations would be held else.
            yield self._run(session, names, batch, used)

    def _run(self, session: Any, names: tuple[str, ...], batch: Tensor, used: int) -> dict[str, Tensor]:
        found = self._found(session, names, batch)
        return {name: self._shown(value, used) for name, value in zip(names, found, strict=True)}

    def _found(self, session: Any, names: tuple[str, ...], batch: Tensor) -> list[Tensor]:
        kept = self._kept.get(batch.shape) if self.reuse else None
        if kept is not None:
            kept.binding.bind_cpu_input(self.input_name, np.ascontiguousarray(batch))
            session.run_with_iobinding(kept.binding)
            # An output that is the input itself is not copied to its buffer.
            return [batch if name == self.input_name else t for name, t in zip(names, kept.tensors, strict=True)]
        found: list[Tensor] = session.run(list(names), {self.input_name: batch})
        if self.reuse:
            self._kept.clear()  # of another number of rows
            self._kept[batch.shape] = _Kept.of(session, names, found)
        return found

    def _shown(self, value: Tensor, used: int) -> Tensor:
        filled_up = self.fixed and used < self.rows and value.ndim and value.shape[0] == self.rows
        return value[:used] if filled_up else value


def open_runner(
    graph: ModelGraph,
    names: Sequence[str],
    probe: Tensor,
    *,
    batch: int = 8,
    threads: int = 0,
    optimize: bool = True,
    reuse: bool = False,
) -> Runner:
    """A runner for the activations `names`.

    Args:
        graph: an FP32 network.
        names: what to hand out.
        probe: a row of the input, (C, H, W); with its mirror image it tells whether the batch axis can be freed.
        batch: rows to run at a time; fewer where their activations would not fit into MAX_BYTES.
        threads: for onnxruntime; 0 for one per core.
        optimize: let onnxruntime rewrite the graph. Without, Q/DQ nodes do exactly what they say.
        reuse: let the next run overwrite what was handed out, where one session does all and shapes are known.
    """
    threads = threads or os.cpu_count() or 1
    freed = _freed(graph)
    fixed = not _same_answer(graph, freed, probe)
    sizes = [_bytes_per_row(graph, name) for name in names]
    rows = max(graph.batch, 1) if fixed else max(1, min(batch, MAX_BYTES // max(1, sum(sizes))))
    model = copy.deepcopy(graph.model) if fixed else freed
    del freed  # one copy of the weights is enough
    parts = []
    for chunk in _chunks(names, [size * rows for size in sizes]):
        _set_outputs(model, chunk)
        parts.append((open_ort_session(model, threads=threads, optimize=optimize), tuple(chunk)))
    return Runner(graph.input.name, tuple(parts), rows, fixed, reuse and len(parts) == 1 and _known(graph, names))


def open_ort_session(model: onnx.ModelProto, *, threads: int, quiet: bool = False, optimize: bool = True) -> Any:
    """An onnxruntime session on the CPU."""
    ort = require("onnxruntime", "run the network")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4 if quiet else 3
    options.enable_cpu_mem_arena = False  # it grows, and never gives back
    # The observers' threads want the cores as soon as the network is done with them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except run_errors() as error:
        if quiet:
            raise
        raise CalibrationError(
            f"onnxruntime cannot run the graph ({first_line(error)})",
            allowed=f"operators and an opset that onnxruntime {ort.__version__} knows",
            remedy="cut the graph before such an operator, or install a newer onnxruntime",
        ) from error


def _set_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    helper = require("onnx", "edit models").helper
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)


def _chunks(names: Sequence[str], sizes: Sequence[int]) -> list[list[str]]:
    """Neighbours together, as many as fit into MAX_ROW_BYTES."""
    chunks: list[list[str]] = [[]]
    filled = 0
    for name, size in zip(names, sizes, strict=True):
        if chunks[-1] and filled + size > MAX_ROW_BYTES:
            chunks.append([])
            filled = 0
        chunks[-1].append(name)
        filled += size
    return chunks


def _known(graph: ModelGraph, names: Sequence[str]) -> bool:
    """True if the shapes of these tensors are known before the network runs, the batch excepted."""
    shapes = [graph.types[name][1] for name in names]
    return all(shape and all(size > 0 for size in shape[1:]) for shape in shapes)


def _bytes_per_row(graph: ModelGraph, name: str) -> int:
    shape = graph.types[name][1]
    return 4 * int(np.prod([size for size in shape if size > 0], dtype=np.int64)) // max(graph.batch, 1)


def _freed(graph: ModelGraph) -> onnx.ModelProto:
    """A copy with a free batch axis, if only shapes that state the batch size prevent one."""
    model = copy.deepcopy(graph.model)
    for value in [*model.graph.output, *(v for v in model.graph.input if v.name == graph.input.name)]:
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]
    loosen_batch(model, graph.batch, tuple(SHAPE_INPUT))
    return model


def _same_answer(graph: ModelGraph, freed: onnx.ModelProto, probe: Tensor) -> bool:
    """True if two different rows through `freed` at once give the outputs that the graph gives for each."""
    rows = np.stack([probe, probe[..., ::-1]])
    try:
        together = open_ort_session(freed, threads=1, quiet=True).run(None, {graph.input.name: rows})
    except run_errors():
        return False
    size = max(graph.batch, 1)
    session = open_ort_session(graph.model, threads=1)
    filled = [session.run(None, {graph.input.name: np.stack([rows[(i + k) % 2] for k in range(size)])}) for i in (0, 1)]
    for index, value in enumerate(together):
        own = [answer[index] for answer in filled]
        if value.shape[:1] != (2,) or any(entry.shape[:1] != (size,) for entry in own):
            return False
        if not all(np.allclose(value[i], own[i][0], rtol=CLOSE, atol=CLOSE, equal_nan=True) for i in (0, 1)):
            return False
    return True


def run_errors() -> tuple[type[Exception], ...]:
    """Exceptions that onnxruntime raises for a graph or input that does not fit; the classes have no common base of
    their own."""
    state = require("onnxruntime.capi.onnxruntime_pybind11_state", "run the network")
    names = ("Fail", "InvalidArgument", "InvalidGraph", "NotImplemented", "RuntimeException", "InvalidProtobuf")
    return tuple(getattr(state, name) for name in names)
