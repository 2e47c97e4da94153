"""A `tensorrt` module per version that has the names of the real one and raises on anything else.

The names are recorded from the real bindings' sources (surfaces.json). Behaviour is faked where a build needs it.
"""

from __future__ import annotations

import enum
import functools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

SURFACES = json.loads(Path(__file__).with_name("surfaces.json").read_text())["versions"]
VERSIONS = sorted(SURFACES, key=lambda version: [int(part) for part in version.split(".")])


class Names(type):
    """The class has the names, too: code may ask it before it makes an object."""

    allowed: frozenset[str] = frozenset()

    def __getattr__(cls, name: str) -> str:
        if name not in cls.allowed:
            raise AttributeError(f"this version's {cls.__name__} has no {name!r}")
        return name


class Strict(metaclass=Names):
    """Attributes that the real class has may be set and called; every use is recorded."""

    allowed: frozenset[str] = frozenset()
    calls: list[tuple[Any, ...]]
    log: Any

    def __init__(self, *arguments: Any) -> None:
        object.__setattr__(self, "calls", [])
        object.__setattr__(self, "arguments", arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        self._require(name)
        self.calls.append((name, value))
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        self._require(name)
        return functools.partial(self._call, name)

    def _require(self, name: str) -> None:
        if name not in type(self).allowed:
            raise AttributeError(f"this version's {type(self).__name__} has no {name!r}")

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        self.calls.append((name, *arguments))
        return True


class Logger:
    """The real ILogger is a plain base class."""


class ProgressMonitor:
    """So is the real IProgressMonitor."""


def fake_tensorrt(version: str) -> tuple[Any, dict[str, Any]]:
    """The module, and a dictionary in which the objects that a build makes can be found afterwards."""
    names = SURFACES[version]["names"]
    trt: Any = ModuleType("tensorrt")
    made: dict[str, Any] = {}
    trt.__version__ = f"{version}.0"
    trt.float32 = "float32"
    trt.ILogger = Logger
    if "progress_monitor" in names["IBuilderConfig"]:
        trt.IProgressMonitor = ProgressMonitor
    for name, members in names.items():
        if name[0] == "I" and "Calibrator" in name:
            setattr(trt, name, type(name, (), {}))
        elif name.isupper() or name in ENUMS:
            setattr(trt, name, enum.IntEnum(name, {member: place for place, member in enumerate(members)}))
    _add_classes(trt, names, made)
    return trt, made


# In a timing cache of another device.
FOREIGN = b"foreign"
ENUMS = {
    "BuilderFlag",
    "DeviceType",
    "EngineCapability",
    "HardwareCompatibilityLevel",
    "LayerInformationFormat",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParserFlag",
    "ProfilingVerbosity",
    "SerializationFlag",
    "TacticSource",
}


def _strict(name: str, names: dict[str, list[str]], **behaviour: Any) -> type[Strict]:
    for method in behaviour:
        if method not in names[name]:
            raise AssertionError(f"the fake {name} has {method}, the real one does not")
    return type(name, (Strict,), {"allowed": frozenset(names[name]), **behaviour})


def _add_classes(trt: Any, names: dict[str, list[str]], made: dict[str, Any]) -> None:
    tensor_class = _strict("ITensor", names)
    layer_class = _strict("ILayer", names, num_outputs=1, get_output=lambda self, place: made["tensor"])
    made["input"], made["tensor"], made["layer"] = tensor_class(), tensor_class(), layer_class()
    made["input"].name, made["tensor"].name, made["layer"].name = "pixels", "features", "conv"
    made["tensor"].shape = (1, 8, 8, 8)
    made["tensor"].dtype, made["layer"].type = "DataType.HALF", "LayerType.CONVOLUTION"
    _add_runtime(trt, names, made)
    _add_refitters(trt, names, made)
    cache = _strict("ITimingCache", names, serialize=_serialize, combine=_combine)

    def set_timing_cache(self: Any, cache: Any, ignore_mismatch: bool) -> bool:
        if FOREIGN in cache.arguments[0] and not ignore_mismatch:
            return False
        made.setdefault("caches", []).append(cache)
        return True

    config = _strict(
        "IBuilderConfig",
        names,
        create_timing_cache=lambda self, data: None if data == b"damaged" else cache(data),
        set_timing_cache=set_timing_cache,
        get_timing_cache=lambda self: cache(made["caches"][-1].arguments[0] + b"+times"),
        can_run_on_DLA=lambda self, layer: layer.name not in made.get("gpu_only", ()),
    )
    network = _strict(
        "INetworkDefinition",
        names,
        num_layers=1,
        num_inputs=1,
        get_layer=lambda self, place: made["layer"],
        mark_output=lambda self, tensor: made.setdefault("marked", []).append(tensor.name),
        get_input=lambda self, place: made["input"],
    )

    def create_network(self: Any, flags: int = 0) -> Any:
        made["network_flags"] = flags
        return made.setdefault("network", network())

    trt.IBuilderConfig = config
    trt.Builder = _strict(
        "Builder",
        names,
        create_network=create_network,
        create_builder_config=lambda self: made.setdefault("config", config()),
        build_serialized_network=lambda self, network, config: b"engine",
        num_DLA_cores=2,
    )
    trt.OnnxParser = _strict("OnnxParser", names, parse=lambda self, data: made.update(onnx=data) is None)


INSPECTED = {
    "Name": "conv + relu",
    "LayerType": "CaskConvolution",
    "Outputs": [{"Name": "features", "Format/Datatype": "Half"}],
    "TacticName": "sm80_xmma_fprop",
    "Metadata": "[ONNX Layer: conv]\x1f[ONNX Layer: relu]",
}


def _add_runtime(trt: Any, names: dict[str, list[str]], made: dict[str, Any]) -> None:
    """Engines load only where made["gpu"] is set."""
    text = json.dumps({"Layers": [INSPECTED, "a layer that was built with its name only"], "Bindings": ["images"]})
    inspector = _strict("EngineInspector", names, get_engine_information=lambda self, format: text)
    engine = _strict(
        "ICudaEngine", names, create_engine_inspector=lambda self: inspector(), **_serialization(names, made)
    )

    def load(self: Any, data: bytes) -> Any:
        """As the real one: an engine that brings host code along wants permission first."""
        allowed = not made.get("host_code") or ("engine_host_code_allowed", True) in self.calls
        return engine() if made.get("gpu") and allowed else None

    trt.Runtime = _strict("Runtime", names, deserialize_cuda_engine=load)


def _serialization(names: dict[str, list[str]], made: dict[str, Any]) -> dict[str, Any]:
    """How an engine is written again with weights: from 10.0 on."""
    if "ISerializationConfig" not in names:
        return {}
    config = _strict("ISerializationConfig", names)
    return {
        "create_serialization_config": lambda self: made.setdefault("serialization", config()),
        "serialize_with_config": lambda self, config: b"complete engine",
    }


def _add_refitters(trt: Any, names: dict[str, list[str]], made: dict[str, Any]) -> None:
    def refit(self: Any, path: str) -> bool:
        made["refitted from"] = Path(path).read_bytes()
        return not made.get("misfit")

    trt.Refitter = _strict(
        "Refitter",
        names,
        refit_cuda_engine=lambda self: not made.get("lacking"),
        get_missing_weights=lambda self: made["lacking"],
    )
    if "OnnxParserRefitter" in names:
        trt.OnnxParserRefitter = _strict("OnnxParserRefitter", names, refit_from_file=refit, num_errors=0)


def _serialize(self: Any) -> bytes:
    """What a timing cache knows: words."""
    return b"+".join(sorted({word for word in self.arguments[0].split(b"+") if word}))


def _combine(self: Any, other: Any, ignore_mismatch: bool) -> bool:
    if FOREIGN in other.arguments[0] and not ignore_mismatch:
        return False
    object.__setattr__(self, "arguments", (self.arguments[0] + b"+" + other.arguments[0],))
    return True
