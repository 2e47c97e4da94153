"""The layers of an engine. TensorRT's inspector tells what the builder made of them, fused and with the kernels that it
chose; it has to load the engine for that, which takes the GPU it was built for. Elsewhere the layers are those that
the parser made, before the builder fused them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from eightfold.errors import BuildError, EightfoldError
from eightfold.export.tensorrt.messages import collecting_logger
from eightfold.files import PathLike
from eightfold.json_types import JsonDict
from eightfold.text_table import text_table
from eightfold.values import Frozen, Value

if TYPE_CHECKING:
    from tensorrt import ICudaEngine, ILayer, INetworkDefinition, Runtime


class EngineLayer(Frozen):
    """One layer.

    Attributes:
        name, kind: as TensorRT gives them.
        precision: type of its first output.
        kernel: what the builder chose; "" where only the inspector could tell.
        outputs: names of the tensors that it makes.
        nodes: the graph's nodes that it carries out; from TensorRT 8.6 on, before that they are in its name.
    """

    name: str
    kind: str = ""
    precision: str = ""
    kernel: str = ""
    outputs: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()


class EngineLayers(Value):
    """`<engine>.layers.json`. `source`: the engine's inspector, or the network before the build."""

    kind: ClassVar[str] = "engine layers"
    error: ClassVar[type[EightfoldError]] = BuildError

    source: Literal["inspector", "network"]
    layers: tuple[EngineLayer, ...]

    def making(self, tensor: str, node: str) -> EngineLayer | None:
        """The layer that computes a tensor of the graph, or that contains its node; None if unknown.

        Several may: copies into another memory layout bear the tensor's name, too.
        """
        makers = [each for each in self.layers if tensor in each.outputs and each.kind.lower() != "reformat"]
        holders = [each for each in self.layers if node and node in each.nodes]
        return next(iter((*holders, *makers)), None)

    def describe(self) -> str:
        """A table, one line per layer."""
        sources = {
            "inspector": "as TensorRT's inspector tells them",
            "network": "as they were parsed, before fusion: the inspector needs the engine's GPU",
        }
        rows = [("layer", "kind", "precision", "kernel")]
        rows += [(each.name, each.kind, each.precision, each.kernel) for each in self.layers]
        return "\n".join([f"{len(self.layers)} layers, {sources[self.source]}", *text_table(rows, left={0, 1, 2, 3})])


def layers_path(engine: PathLike) -> Path:
    """Path of the layers of an engine file."""
    return Path(f"{engine}.layers.json")


def layers_of_network(network: INetworkDefinition) -> EngineLayers:
    """The layers of a parsed network."""
    layers = (network.get_layer(place) for place in range(network.num_layers))
    return EngineLayers(source="network", layers=tuple(_parsed(layer) for layer in layers))


def _parsed(layer: ILayer) -> EngineLayer:
    made = [layer.get_output(place) for place in range(layer.num_outputs)]
    precision = _name(made[0].dtype) if made else ""
    return EngineLayer(
        name=layer.name, kind=_name(layer.type), precision=precision, outputs=tuple(tensor.name for tensor in made)
    )


def layers_of_engine(trt: ModuleType, engine: bytes, *, host_code: bool = False) -> EngineLayers | None:
    """Layers from the engine inspector; None if the engine cannot be loaded on this machine. `host_code`: see
    `engine_fit.holds_host_code`; the engine was just built here."""
    runtime: Runtime = trt.Runtime(collecting_logger(trt, []))  # why it fails there is no part of the build's messages
    if host_code:
        runtime.engine_host_code_allowed = True
    loaded: ICudaEngine | None = runtime.deserialize_cuda_engine(engine)
    if loaded is None:
        return None
    text = loaded.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return EngineLayers(source="inspector", layers=tuple(_inspected(json.loads(text))))


def _inspected(information: JsonDict) -> Iterator[EngineLayer]:
    for layer in information.get("Layers", []):
        if isinstance(layer, str):  # engines that were built with less to tell
            yield EngineLayer(name=layer, nodes=_nodes(layer, ""))
            continue
        outputs = layer.get("Outputs") or [{}]
        yield EngineLayer(
            name=layer.get("Name", ""),
            kind=layer.get("LayerType", ""),
            precision=str(outputs[0].get("Format/Datatype", "")),
            kernel=str(layer.get("TacticName", "")),
            outputs=tuple(str(each["Name"]) for each in outputs if "Name" in each),
            nodes=_nodes(layer.get("Name", ""), str(layer.get("Metadata", ""))),
        )


def _nodes(name: str, metadata: str) -> tuple[str, ...]:
    """Names of ONNX nodes, from "[ONNX Layer: conv]\\x1f[ONNX Layer: relu]" or else from "conv + PWN(relu)"."""
    onnx_nodes = re.findall(r"\[ONNX Layer: ([^\]]*)\]", metadata)
    return tuple(onnx_nodes or (re.sub(r"^PWN\((.*)\)$", r"\1", part) for part in name.split(" + ")))


def _name(member: Any) -> str:
    """'convolution' of LayerType.CONVOLUTION."""
    return str(member).rpartition(".")[2].lower()
