"""A back end that runs TensorRT-RTX's engines without a GPU: as their records say, by onnxruntime."""

from __future__ import annotations

from pathlib import Path

from eightfold.export.tensorrt.parse import typed_graph
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.export.verify.verify import runner, with_outputs
from eightfold.onnx_graph.onnx_files import load_onnx
from eightfold.runtime.backends.base import Backend, Session, SessionOptions, Slot, empty_like


class StandIn(Backend):
    """Runs an engine as its record says: the graph it was built from, with the outputs that it was given."""

    name, formats = "tensorrt-rtx", ("engine",)

    def __init__(self, graph: Path) -> None:
        self.graph = graph
        self.opened: list[EngineRecord] = []
        self.devices: list[int] = []

    def absent(self) -> None:
        return None

    def open(self, path: Path, options: SessionOptions) -> Session:
        record = EngineRecord.load(sidecar_path(path))
        self.opened.append(record)
        self.devices.append(options.device)
        for name in record.options.inner_outputs:
            assert name.encode() in path.read_bytes()  # the real engine has it
        return StandInSession(self.graph, record)


class StandInSession(Session):
    def __init__(self, graph: Path, record: EngineRecord) -> None:
        self.inputs, self.outputs = record.inputs, record.outputs
        kept = (*record.options.float_layers, *record.float_nodes)
        with typed_graph(graph, half=record.precision == "fp16", inputs=None, keep_float=kept) as typed:
            model = with_outputs(load_onnx(typed.path), [spec.name for spec in record.outputs])
        self.run = runner(model, optimize=False)

    def new_slot(self) -> Slot:
        return StandInSlot(self)


class StandInSlot(Slot):
    def __init__(self, session: StandInSession) -> None:
        self._run = session.run
        self.inputs = {spec.name: empty_like(spec) for spec in session.inputs}
        self.outputs = {}

    def run(self) -> None:
        self.outputs = self._run(self.inputs)
