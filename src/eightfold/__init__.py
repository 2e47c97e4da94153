"""eightfold: compress vision networks for edge devices, and prove what was done.

Every public name is imported when it is first used, so that `import eightfold` needs the base install only.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# public name -> module that defines it
_HOME: dict[str, str] = {
    "BuildOptions": "eightfold.export.tensorrt.options",
    "Bundle": "eightfold.runtime.bundle.bundle",
    "ChannelGraph": "eightfold.compress.trace.groups",
    "CompressOptions": "eightfold.pipeline.compress_model",
    "EightfoldError": "eightfold.errors",
    "LatencyTable": "eightfold.runtime.bench.latency",
    "Predictor": "eightfold.runtime.predict.predictor",
    "Preprocess": "eightfold.calib.images.preprocess",
    "PrunePlan": "eightfold.compress.plan.plan",
    "QuantReport": "eightfold.export.int8.quant_report",
    "Ranges": "eightfold.calib.ranges",
    "SlowInt8Warning": "eightfold.export.int8.int8_speed",
    "Task": "eightfold.runtime.bundle.manifest",
    "add_engine": "eightfold.export.bundle.add_engine",
    "apply_plan": "eightfold.compress.front",
    "bench": "eightfold.pipeline.bench_models",
    "build_engine": "eightfold.export.tensorrt.build",
    "build_openvino": "eightfold.export.openvino.openvino_build",
    "cache_from_ranges": "eightfold.calib.trt_cache",
    "calibrate": "eightfold.calib.calibrate",
    "channel_ranges": "eightfold.calib.channels",
    "compare_artifacts": "eightfold.export.compare.compare",
    "compare_bundles": "eightfold.export.compare.compare_bundles",
    "compare_latency": "eightfold.runtime.bench.bench",
    "compensate": "eightfold.compress.compensate.compensate",
    "compress_model": "eightfold.pipeline.compress_model",
    "content_of_bundle": "eightfold.runtime.report.report_bundle",
    "count_macs": "eightfold.compress.trace.macs",
    "count_parameters": "eightfold.compress.trace.macs",
    "describe_device": "eightfold.runtime.devices.devices",
    "diagnose": "eightfold.runtime.doctor.doctor",
    "diff_plans": "eightfold.compress.plan.plan_changes",
    "equalize": "eightfold.export.int8.equalize",
    "export_batches": "eightfold.export.fixed_size.batches",
    "export_bundle": "eightfold.export.bundle.export_bundle",
    "export_onnx": "eightfold.export.torch.onnx_export",
    "freeze_onnx": "eightfold.export.fixed_size.fix_shapes",
    "inspect_model": "eightfold.compress.front",
    "load_pruned": "eightfold.compress.surgery.artifacts",
    "merge_plans": "eightfold.compress.plan.plan_changes",
    "open_images": "eightfold.calib.images.images",
    "plan_pruning": "eightfold.compress.front",
    "predict_sources": "eightfold.runtime.predict.predict_sources",
    "preview_run": "eightfold.pipeline.run",
    "prune": "eightfold.compress.front",
    "quantize": "eightfold.export.int8.quantize",
    "read_ranges": "eightfold.calib.trt_cache",
    "recover": "eightfold.compress.train.recover.recover",
    "refit_engine": "eightfold.export.tensorrt.refit",
    "run": "eightfold.pipeline.run",
    "save_pruned": "eightfold.compress.surgery.artifacts",
    "search_pruning": "eightfold.compress.search",
    "simplify": "eightfold.export.simplify.simplify",
    "trace": "eightfold.compress.trace.trace",
    "write_bundle": "eightfold.export.bundle.write",
    "write_report": "eightfold.runtime.report.report",
}

__all__ = [
    "BuildOptions",
    "Bundle",
    "ChannelGraph",
    "CompressOptions",
    "EightfoldError",
    "LatencyTable",
    "Predictor",
    "Preprocess",
    "PrunePlan",
    "QuantReport",
    "Ranges",
    "SlowInt8Warning",
    "Task",
    "__version__",
    "add_engine",
    "apply_plan",
    "bench",
    "build_engine",
    "build_openvino",
    "cache_from_ranges",
    "calibrate",
    "channel_ranges",
    "compare_artifacts",
    "compare_bundles",
    "compare_latency",
    "compensate",
    "compress_model",
    "content_of_bundle",
    "count_macs",
    "count_parameters",
    "describe_device",
    "diagnose",
    "diff_plans",
    "equalize",
    "export_batches",
    "export_bundle",
    "export_onnx",
    "freeze_onnx",
    "inspect_model",
    "load_pruned",
    "merge_plans",
    "open_images",
    "plan_pruning",
    "predict_sources",
    "preview_run",
    "prune",
    "quantize",
    "read_ranges",
    "recover",
    "refit_engine",
    "run",
    "save_pruned",
    "search_pruning",
    "simplify",
    "trace",
    "write_bundle",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'eightfold' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
