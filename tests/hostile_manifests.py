"""Manifests that every reader must refuse, and odd ones that every reader must take, as changes to a valid one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Change = Callable[[dict[str, Any]], object]


def _changed(change: Change) -> Callable[[str], bytes]:
    def apply(text: str) -> bytes:
        data = json.loads(text)
        change(data)
        return json.dumps(data).encode()

    return apply


def _within(json_text: str) -> Callable[[str], bytes]:
    """Among what no reader looks into."""

    def apply(text: str) -> bytes:
        data = json.loads(text)
        data["provenance"] = {"x": "HERE"}
        return json.dumps(data).replace('"HERE"', json_text).encode()

    return apply


def _artifact(**values: Any) -> Callable[[str], bytes]:
    return _changed(lambda data: data["artifacts"][0].update(values))


def _preprocess(**values: Any) -> Callable[[str], bytes]:
    return _changed(lambda data: data["preprocess"].update(values))


def _tensor(**values: Any) -> Callable[[str], bytes]:
    return _changed(lambda data: data["artifacts"][0]["inputs"][0].update(values))


STEP = {"name": "export"}
METRIC = {"name": "top1", "value": 0.5, "data": "d", "images": 3}

REFUSED: dict[str, Callable[[str], bytes]] = {
    "nothing": lambda text: b"",
    "a list": lambda text: b"[]",
    "two documents": lambda text: f"{text} {{}}".encode(),
    "something behind a zero byte": lambda text: f"{text}\0{{}}".encode(),
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "not UTF-8": lambda text: text.replace("colours", "colo\xfcrs").replace("test", "t\xebst").encode("latin-1"),
    "nested without end": lambda text: b"[" * 200_000,
    "nested deeply": _within("[" * 5_000 + "]" * 5_000),
    "a key twice": lambda text: text.replace('"schema": 1', '"schema": 1, "schema": 1', 1).encode(),
    "a key twice where nobody looks": _within('{"a": 1, "a": 2}'),
    "NaN": _within("NaN"),
    "infinity": _within("-Infinity"),
    "a number beyond a double": _within("1e999"),
    "a whole number beyond a double": _within("1" * 400),
    "a whole number of many digits": _within("1" * 5_000),
    "half a surrogate pair": _within(r'"\ud800"'),
    "half a surrogate pair for a key": _within(r'{"\udc00": 1}'),
    "a control character": _within('"\t"'),
    "a comment": _within("1 /* one */"),
    "a trailing comma": _within("[1,]"),
    "a leading zero": _within("01"),
    "another schema": _changed(lambda data: data.update(schema=2)),
    "a schema of another type": _changed(lambda data: data.update(schema=True)),
    "a schema with a fraction": _changed(lambda data: data.update(schema=1.0)),
    "no schema": _changed(lambda data: data.pop("schema")),
    "no kind": _changed(lambda data: data.pop("kind")),
    "another kind": _changed(lambda data: data.update(kind="prune plan")),
    "an unknown key": _changed(lambda data: data.update(more=1)),
    "an unknown task": _changed(lambda data: data["task"].update(kind="guess")),
    "options that are a list": _changed(lambda data: data["task"].update(options=[])),
    "labels that are numbers": _changed(lambda data: data["task"].update(labels=[1])),
    "provenance that is a list": _changed(lambda data: data.update(provenance=[])),
    "two artifacts of one id": _changed(lambda data: data["artifacts"].append(data["artifacts"][0])),
    "an artifact that is null": _changed(lambda data: data.update(artifacts=[None])),
    "a batch that is text": _artifact(batch="1"),
    "a batch that is true": _artifact(batch=True),
    "a batch with a fraction": _artifact(batch=1.0),
    "no batch": _artifact(batch=0),
    "a huge batch": _artifact(batch=2**17),
    "no inputs": _artifact(inputs=[]),
    "an unknown format": _artifact(format="pickle"),
    "deterministic in words": _artifact(deterministic="yes"),
    "layers in words": _artifact(layers={"int8": "all"}),
    "requirements in numbers": _artifact(requires={"tensorrt": 10.3}),
    "a metric without images": _artifact(metrics=[{**METRIC, "images": -1}]),
    "a metric that is text": _artifact(metrics=[{**METRIC, "value": "0.5"}]),
    "an unknown key of a metric": _artifact(metrics=[{**METRIC, "unit": "%"}]),
    "a step without a name": _artifact(steps=[{}]),
    "an error that is text": _artifact(steps=[{**STEP, "max_abs_error": "0"}]),
    "notes that are text": _artifact(steps=[{**STEP, "notes": "none"}]),
    "a tensor with a negative side": _tensor(shape=[1, -3]),
    "a tensor larger than memory": _tensor(shape=[1, 2**20, 2**20]),
    "a tensor whose size overflows": _tensor(shape=[2**32, 2**32]),
    "a tensor whose zero hides its size": _tensor(shape=[2**31, 0, 2**31]),
    "a tensor of an unknown type": _tensor(dtype="object"),
    "a huge picture": _preprocess(height=10**9),
    "no picture": _preprocess(height=0),
    "a standard deviation of zero": _preprocess(std=[0.0]),
    "means for two channels": _preprocess(mean=[0.1, 0.2]),
    "equal means for two channels": _preprocess(mean=[0.5, 0.5]),
    "no means": _preprocess(mean=[]),
    "a mean in the unit of pixels": _preprocess(mean=[123.675]),
    "a mean of scaled pixels": _preprocess(scale=1, mean=[0.5], std=[0.25]),
    "a deviation in the unit of pixels": _preprocess(std=[58.4]),
    "a scale of zero": _preprocess(scale=0),
    "as-is without channels": _preprocess(color="as-is"),
    "four channels of RGB": _preprocess(color="rgb", channels=4),
    "no channels": _preprocess(color="as-is", channels=0),
    "too many channels": _preprocess(color="as-is", channels=513),
    "bytes of 16 bits": _preprocess(pixels="uint16", dtype="uint8"),
    "pixels of 32 bits": _preprocess(pixels="uint32"),
    "means for other channels than as-is": _preprocess(color="as-is", channels=4, mean=[0.1, 0.2, 0.3]),
    "a padding beyond a byte": _preprocess(pad_value=256),
    "a smaller shorter side than the crop": _preprocess(resize="center-crop", shorter_side=1),
    "preprocessing of another schema": _preprocess(schema=2),
    "a digest in capitals": _changed(lambda data: data["files"].update(x={"bytes": 1, "sha256": "A" * 64})),
    "a digest with a line break": _changed(
        lambda data: data["files"].update(x={"bytes": 1, "sha256": "a" * 64 + "\n"})
    ),
    "a negative size": _changed(lambda data: data["files"].update(x={"bytes": -1, "sha256": "a" * 64})),
}
ACCEPTED: dict[str, Callable[[str], bytes]] = {
    "as it is": lambda text: text.encode(),
    "null for an error": _artifact(steps=[{**STEP, "cosine": None, "max_abs_error": 0}]),
    "whole numbers for means": _preprocess(mean=[0, 0, 0], std=[1, 1, 1]),
    "one mean for all channels": _preprocess(mean=[0.5]),
    "no kind within": _changed(lambda data: data["preprocess"].pop("kind")),
    "a whole surrogate pair": _within(r'"\ud83d\ude00"'),
    "a number of many digits": _within("0." + "3" * 400),
    "minus zero": _within("-0"),
    "some nesting": _within("[" * 90 + "]" * 90),
    "no provenance": _changed(lambda data: data.pop("provenance")),
    "a metric": _artifact(metrics=[METRIC]),
}

# Beside "onnx/pruned-b1.onnx".
UNSAFE_NAMES = (
    *("../outside", "/etc/passwd", "a/../../b", "a//b", "./a", "a/./b", "a\\b", "C:/windows", "", "a/", "a\0b"),
    *("a\nb", "a\x1b[2Jb", "a\x7f"),
    *("ONNX/pruned-b1.onnx", "onnx/Pruned-b1.onnx", "onnx", "onnx/pruned-b1.onnx/more"),
    *("x" * 256, "\N{SNOWMAN}" * 86, "/".join(["x" * 100] * 11)),
)
SAFE_NAMES = ("Report.html", "x" * 255, "\N{SNOWMAN}" * 85, "a b/c:d", "...", "-", "onnx/pruned-b1.onnx.json")
