"""Options become calls on a builder's config: one function per concern, for every generation alike where it can be."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from eightfold.errors import BuildError, UnknownNameError
from eightfold.export.tensorrt.calibrator import calibrator_from_cache
from eightfold.export.tensorrt.generation import Generation
from eightfold.export.tensorrt.intermediate_outputs import tensors_of
from eightfold.export.tensorrt.options import BuildOptions

if TYPE_CHECKING:
    from tensorrt import IBuilderConfig, INetworkDefinition, ITensor


def configure(
    trt: ModuleType,
    config: IBuilderConfig,
    network: INetworkDefinition,
    generation: Generation,
    precision: str,
    options: BuildOptions,
) -> tuple[str, ...]:
    """Set `config` and the network's layers up; returns the names of the flags that were set, and the level of hardware
    compatibility where there is one. What is set exists: see `limits.require_available`."""
    flags = builder_flags(generation, precision, options)
    for flag in flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that the inspector has something to tell
    _set_workspace(trt, config, generation, options)
    level = _set_levels(trt, config, options)
    _set_dla(trt, config, options)
    if options.float_layers and not generation.strongly_typed:  # where types come from the graph it has them already
        _keep_layers_float(trt, network, options)
    if options.has_ranges and precision == "int8":
        _set_ranges(trt, config, network, options)
    return (*flags, *level)


def layers_for_gpu(config: IBuilderConfig, network: INetworkDefinition, options: BuildOptions) -> tuple[str, ...]:
    """Names of the layers that the chosen accelerator does not take."""
    if options.dla_core is None:
        return ()
    layers = (network.get_layer(place) for place in range(network.num_layers))
    return tuple(layer.name for layer in layers if not config.can_run_on_DLA(layer))


def network_flags(generation: Generation) -> tuple[str, ...]:
    """Names of the flags that a network is created with."""
    flags = (("EXPLICIT_BATCH", generation.explicit_batch), ("STRONGLY_TYPED", generation.strongly_typed))
    return tuple(name for name, wanted in flags if wanted)


def builder_flags(generation: Generation, precision: str, options: BuildOptions) -> tuple[str, ...]:
    """Names of the flags that a build is configured with."""
    return (*_precision_flags(generation, precision, options), *_option_flags(options))


def _precision_flags(generation: Generation, precision: str, options: BuildOptions) -> list[str]:
    if generation.strongly_typed:
        return []
    # INT8 engines may use float16 where that is faster or there is no INT8 kernel.
    flags = {"fp32": [], "fp16": ["FP16"], "int8": ["INT8", "FP16"]}[precision]
    if options.float_layers:
        flags.append(f"{options.precision_constraints.upper()}_PRECISION_CONSTRAINTS")
    return flags


def _option_flags(options: BuildOptions) -> list[str]:
    wanted = {
        "VERSION_COMPATIBLE": options.version_compatible,
        "REFIT": options.refittable,
        "STRIP_PLAN": options.strip_weights,
        "GPU_FALLBACK": options.dla_core is not None and options.gpu_fallback,
    }
    return [name for name, on in wanted.items() if on]


def _set_workspace(trt: ModuleType, config: IBuilderConfig, generation: Generation, options: BuildOptions) -> None:
    if options.workspace_bytes is None:
        return
    if generation.memory_pools:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    else:
        old_config: Any = config  # types know the newer versions
        old_config.max_workspace_size = options.workspace_bytes


def _set_levels(trt: ModuleType, config: IBuilderConfig, options: BuildOptions) -> tuple[str, ...]:
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.tactic_sources is not None:
        sources = 0
        for name in options.tactic_sources:
            sources |= 1 << int(getattr(trt.TacticSource, name))
        config.set_tactic_sources(sources)
    if not options.hardware_compatible:
        return ()
    config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    return ("AMPERE_PLUS",)


def _set_dla(trt: ModuleType, config: IBuilderConfig, options: BuildOptions) -> None:
    if options.dla_core is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core


def _keep_layers_float(trt: ModuleType, network: INetworkDefinition, options: BuildOptions) -> None:
    layers = {layer.name: layer for layer in (network.get_layer(place) for place in range(network.num_layers))}
    for name in options.float_layers:
        if name not in layers:
            raise UnknownNameError.of("layer", name, layers)
        layers[name].precision = trt.float32
        for place in range(layers[name].num_outputs):
            layers[name].set_output_type(place, trt.float32)


def _set_ranges(trt: ModuleType, config: IBuilderConfig, network: INetworkDefinition, options: BuildOptions) -> None:
    if options.calibration_cache is not None:
        config.int8_calibrator = calibrator_from_cache(trt, options.calibration_cache.read_bytes())
    if options.ranges is not None:
        _set_dynamic_ranges(network, options.ranges)


def _set_dynamic_ranges(network: INetworkDefinition, ranges: Mapping[str, float]) -> None:
    known = [tensor for tensor in _tensors(network) if tensor.name in ranges]
    if not known:
        raise BuildError(
            f"none of the {len(ranges)} ranges is of a tensor of this graph",
            allowed="ranges by the names of the graph's tensors",
            remedy="calibrate this graph: eightfold calibrate",
        )
    for tensor in known:
        tensor.set_dynamic_range(-ranges[tensor.name], ranges[tensor.name])


def _tensors(network: INetworkDefinition) -> list[ITensor]:
    inputs = [network.get_input(place) for place in range(network.num_inputs)]
    return [*inputs, *tensors_of(network)]
