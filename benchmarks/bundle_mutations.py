"""How `fuzz_bundle.py` damages bundles: bytes, and then what knows the structure of manifests, zips and graphs.

Each takes the sound files, a folder to write into and a random generator, and returns the path to load. Whoever forges
a bundle makes its digests right again, and so do these.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from eightfold.calib.images.preprocess import Preprocess
from eightfold.export.bundle.write import onnx_artifact, write_bundle
from eightfold.runtime.bundle.bundle_names import manifest_digest_line
from eightfold.runtime.bundle.manifest import Task

SIZES = (2, 4), (1, 8)
GRAPHS = tuple(f"onnx/net-{height}x{width}.onnx" for height, width in SIZES)
GRAPH = GRAPHS[0]
WEIGHTS = "onnx/net.weights"
PATHS = (
    "..", "../../escape", "/etc/passwd", "/tmp/escape", "a/../../b", "C:\\x", "x\0y", "x" * 300, GRAPH.upper(),
    "onnx", f"{GRAPH}/below", "*/_ORT_MEM_ADDR_/*", "manifest.json", "\u202e", "con", "~/x", "./x",
)  # fmt: skip
NUMBERS = (-1, 0, 1, 2**16 + 1, 2**31, 2**32 - 1, 2**63, 2**64, -(2**63), 1e308, float("nan"), float("inf"), 10**400)
NASTY: tuple[Any, ...] = (
    None, True, "", "\ud800", [], {}, [[[[]]]], "x" * 10_000, {"": ""}, "1", *PATHS, *NUMBERS,
)  # fmt: skip
Mutation = Callable[[Path, Path, random.Random], Path]


def make_sound(folder: Path) -> None:
    """A bundle of two image sizes as directory and zip, and a graph alone: a subgraph, inner weights, and weights in a
    file beside, which the sizes share."""
    (folder / "onnx").mkdir()
    onnx.save(_sound_graph(*SIZES[0]), str(folder / "net.onnx"))
    for size, inside in zip(SIZES, GRAPHS, strict=True):
        model = _sound_graph(*size)
        (folder / WEIGHTS).write_bytes(_put_weights_beside(model))
        onnx.save(model, str(folder / inside))
    artifacts = [onnx_artifact(folder / inside, id=inside, inside=inside, variant="v") for inside in GRAPHS]
    height, width = SIZES[0]
    arguments: dict[str, Any] = {
        "name": "fuzz",
        "task": Task(kind="tensors", decode="tensors"),
        "preprocess": Preprocess(height=height, width=width, color="grey", resize="center-crop", shorter_side=5),
        "artifacts": artifacts,
        "files": {inside: folder / inside for inside in (*GRAPHS, WEIGHTS)},
    }
    write_bundle(folder / "bundle", **arguments)
    write_bundle(folder / "bundle.eightfold", **arguments)


def _put_weights_beside(model: ModelProto) -> bytes:
    """Returns the content of the file."""
    beside = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    content: bytes = beside.raw_data
    beside.ClearField("raw_data")
    beside.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "net.weights"), ("offset", 0), ("length", len(content))):
        beside.external_data.add(key=key, value=str(value))
    return content


def _sound_graph(height: int, width: int) -> ModelProto:
    weight = np.arange(64, dtype=np.float32).reshape(8, 8)
    branches = {
        name: helper.make_graph(
            [helper.make_node(op, ["product"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8])],
        )
        for name, op in (("then", "Relu"), ("else", "Neg"))
    }
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["row"]),
            helper.make_node("MatMul", ["row", "w"], ["product"]),
            helper.make_node("If", ["which"], ["chosen"], then_branch=branches["then"], else_branch=branches["else"]),
            helper.make_node("Conv", ["picture", "kernel"], ["felt"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            helper.make_node("Reshape", ["chosen", "to"], ["picture"]),
            helper.make_node("Flatten", ["felt"], ["out"]),
        ],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 1, height, width])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 8])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.array(True), "which"),
            numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "kernel"),
            numpy_helper.from_array(np.array([1, 1, 2, 4], np.int64), "to"),
        ],
    )
    nodes = [graph.node[index] for index in (0, 1, 2, 4, 3, 5)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# Bytes


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        place, kind = rng.randrange(len(changed) or 1), rng.randrange(5)
        if kind == 0 and changed:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and changed:
            changed[place] = rng.choice((0, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del changed[place : place + rng.randint(1, 64)]
        elif kind == 3:
            changed[place:place] = rng.randbytes(rng.randint(1, 16))
        else:
            changed[place:place] = changed[place : place + rng.randint(1, 64)]
    return bytes(changed)


# Manifests


def damage_json(value: Any, rng: random.Random) -> Any:
    """Replace, drop, double or rename something at a random depth."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        kind = rng.randrange(8)
        if kind == 0:
            return {name: item for name, item in value.items() if name != key}
        if kind == 1:
            return {**value, str(rng.choice(NASTY)): value[key]}
        return {**value, key: damage_json(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        if rng.random() < 0.05:
            return value * rng.randint(2, 2_000)
        return [*value[:place], damage_json(value[place], rng), *value[place + rng.randint(0, 1) :]]
    return rng.choice(NASTY)


def forge_text(text: str, rng: random.Random) -> bytes:
    """What readers of JSON take differently."""
    kind = rng.randrange(8)
    if kind == 0:
        key = rng.choice(("name", "schema", "bytes", "batch", "path", "sha256"))
        return text.replace(f'"{key}":', f'"{key}": {rng.choice(("1", "null", "[]"))}, "{key}":', 1).encode()
    if kind == 1:
        return b"\xef\xbb\xbf" + text.encode()
    if kind == 2:
        return text.encode(rng.choice(("utf-16", "utf-32", "utf-16-be")))
    if kind == 3:
        deep = rng.choice((50, 400, 2_000, 100_000))
        return text.replace('"fuzz"', "[" * deep + "]" * deep).encode()
    if kind == 4:
        number = rng.choice(("NaN", "-Infinity", "1e999", "1" * 5_000, "01", "0x1", "1.0", "-0", "1_0"))
        return text.replace('"batch": 1', f'"batch": {number}').encode()
    if kind == 5:
        return text.replace("fuzz", rng.choice((r"\ud800", r"\udc00\ud800", r"\u0000", "\\x00", "\x01"))).encode()
    if kind == 6:
        return (text + rng.choice(("{}", "\0", "//", ","))).encode()
    return text.replace("{}", "{" + ",".join(f'"{place}": 1' for place in range(50_000)) + "}", 1).encode()


def write_manifest(bundle: Path, data: bytes) -> None:
    (bundle / "manifest.json").write_bytes(data)
    (bundle / "manifest.sha256").write_text(manifest_digest_line(data))


def manifest_case(source: Path, folder: Path, rng: random.Random) -> Path:
    shutil.copytree(source / "bundle", folder / "bundle")
    text = (folder / "bundle" / "manifest.json").read_text()
    kind = rng.random()
    if kind < 0.25:
        data = damage_bytes(text.encode(), rng)
    elif kind < 0.4:
        data = forge_text(text, rng)
    else:
        changed = json.loads(text)
        for _ in range(rng.randint(1, 3)):
            changed = damage_json(changed, rng)
        data = json.dumps(changed).encode(errors="surrogatepass")
    stated = (folder / "bundle" / "manifest.sha256").read_bytes()
    write_manifest(folder / "bundle", data)
    if rng.random() < 0.05:
        (folder / "bundle" / "manifest.sha256").write_bytes(stated)
    return folder / "bundle"


# Zips

# Offset and size of each field, by PKWARE's APPNOTE, sections 4.3.7, 4.3.12 and 4.3.16.
LOCAL = (b"PK\x03\x04", ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)))
CENTRAL = (
    b"PK\x01\x02",
    ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (38, 4), (42, 4)),
)
END = (b"PK\x05\x06", ((8, 2), (10, 2), (12, 4), (16, 4), (20, 2)))


def _places(data: bytes, signature: bytes) -> list[int]:
    found, at = [], data.find(signature)
    while at >= 0:
        found.append(at)
        at = data.find(signature, at + 1)
    return found


def damage_headers(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        signature, fields = rng.choice((LOCAL, CENTRAL, CENTRAL, END))
        start = rng.choice(_places(data, signature))
        offset, size = rng.choice(fields)
        old = int.from_bytes(changed[start + offset : start + offset + size], "little")
        largest = (1 << 8 * size) - 1
        new = rng.choice((0, 1, 8, 12, 14, 99, largest, largest // 2, old + 1, old - 1, old * 2, 0xA1FF0000, len(data)))
        changed[start + offset : start + offset + size] = (new & largest).to_bytes(size, "little")
    return bytes(changed)


def repacked(source: Path, rng: random.Random) -> Iterator[tuple[zipfile.ZipInfo, bytes]]:
    """Members under hostile names, twice, as links, or with other content; the rest as it was."""
    with zipfile.ZipFile(source / "bundle.eightfold") as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    for info, data in members:
        kind = rng.randrange(12)
        if kind == 0:
            yield zipfile.ZipInfo(rng.choice(PATHS)), data
        if kind == 1:
            yield zipfile.ZipInfo(info.filename), data[::-1]
        if kind == 2:
            info.external_attr = rng.choice((0o120777, 0o060666, 0o010666)) << 16
        if kind == 3:
            data = data + bytes(rng.choice((1, 1 << 20, 1 << 24)))
        yield info, data


def zip_case(source: Path, folder: Path, rng: random.Random) -> Path:
    target = folder / "bundle.eightfold"
    data = (source / "bundle.eightfold").read_bytes()
    kind = rng.random()
    if kind < 0.3:
        target.write_bytes(damage_bytes(data, rng))
        return target
    if kind < 0.6:
        target.write_bytes(damage_headers(data, rng))
        return target
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(target, "w", method) as archive:
        for info, content in repacked(source, rng):
            archive.writestr(info, content, method)
    if kind < 0.85:
        target.write_bytes(damage_headers(target.read_bytes(), rng))
    elif kind < 0.9:
        ends = (b"", b"PK\x05\x06" + bytes(18), rng.randbytes(100), struct.pack("<4s20xI", b"PK\x05\x06", 0))
        target.write_bytes(rng.choice(ends) + target.read_bytes() + rng.choice(ends))
    return target


# Graphs


def damage_graph(model: ModelProto, rng: random.Random) -> None:
    """One change that protobuf allows and ONNX does not, or that asks for what a reader should not do."""
    kinds = [_damage_tensor]
    kinds += [_damage_node, _damage_model] if model.graph.node and model.opset_import else []
    kinds += [_damage_value] if model.graph.input or model.graph.output else []
    rng.choice(kinds)(model.graph, model, rng)


def _damage_tensor(graph: GraphProto, _: ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(list(graph.initializer) or [graph.initializer.add(name="new")])
    kind = rng.randrange(6)
    if kind == 0:
        tensor.dims[:] = [rng.choice((-1, 0, 1, 3, 2**20, 2**31, 2**62)) for _ in range(rng.randint(0, 5))]
    elif kind == 1:
        tensor.data_type = rng.choice((0, 1, 2, 6, 7, 8, 9, 10, 16, 17, 22, 99, -1))
    elif kind == 2:
        tensor.raw_data = rng.randbytes(rng.choice((0, 1, 7, 300)))
    elif kind == 3:
        tensor.name = rng.choice(("", "images", "out", "product", "w"))
    else:
        del tensor.external_data[:]
        tensor.data_location = TensorProto.EXTERNAL
        numbers = ("0", "-1", "256", str(2**62), str(2**63), "1e3", "", "abc", str(10**30))
        for key in rng.sample(("location", "offset", "length", "checksum", "location"), rng.randint(1, 5)):
            places = ("net.weights", "../escape", "../../../../etc/passwd", *PATHS)
            tensor.external_data.add(key=key, value=rng.choice(places if key == "location" else numbers))


def _damage_node(graph: GraphProto, _: ModelProto, rng: random.Random) -> None:
    node: NodeProto = rng.choice(list(graph.node))
    names = [name for each in graph.node for name in (*each.input, *each.output)]
    kind = rng.randrange(7)
    if kind == 0:
        node.op_type = rng.choice(("", "Nope", "Loop", "Scan", "Identity", "Conv", "Resize", "Tile", "Expand"))
    elif kind == 1:
        node.input[:] = rng.choices([*names, ""], k=rng.randint(0, 4))  # cycles among them
    elif kind == 2:
        node.output[:] = rng.choices([*names, ""], k=rng.randint(0, 3))
    elif kind == 3:
        node.domain = rng.choice(("com.microsoft", "x", "ai.onnx.ml"))
    elif kind == 4:
        graph.node.extend([node] * rng.choice((1, 5, 500)))
    elif kind == 5:
        attribute = node.attribute.add(name=rng.choice(("kernel_shape", "pads", "to", "axis", "then_branch", "value")))
        attribute.type = rng.choice((AttributeProto.INT, AttributeProto.INTS, AttributeProto.TENSOR, 0))
        attribute.ints.extend(rng.choice(((-1,), (0, 0), (2**40,), (3,) * 50)))
    else:
        _nest(node, rng.choice((1, 20, 60, 95)))


def _nest(node: NodeProto, levels: int) -> None:
    """Subgraphs within each other; protobuf itself gives up at a hundred messages."""
    inner = node
    for _ in range(levels // 3):
        attribute = inner.attribute.add(name="then_branch", type=AttributeProto.GRAPH)
        attribute.g.name = "deep"
        inner = attribute.g.node.add(op_type="If", input=["which"], output=["chosen"])


def _damage_value(graph: GraphProto, _: ModelProto, rng: random.Random) -> None:
    value = rng.choice([*graph.input, *graph.output])
    kind = rng.randrange(4)
    if kind == 0:
        value.type.tensor_type.elem_type = rng.choice((0, 1, 2, 8, 10, 16, 99))
    elif kind == 1:
        del value.type.tensor_type.shape.dim[:]
        for size in rng.choices((-1, 0, 1, 8, 2**20, 2**40, 2**62), k=rng.randint(0, 6)):
            value.type.tensor_type.shape.dim.add(dim_value=size)
    elif kind == 2:
        value.type.Clear()
    else:
        value.name = rng.choice(("", "w", "out", "images", "x" * 5_000))


def _damage_model(graph: GraphProto, model: ModelProto, rng: random.Random) -> None:
    kind = rng.randrange(5)
    if kind == 0:
        model.opset_import[0].version = rng.choice((-1, 0, 1, 6, 9_999, 2**40))
    elif kind == 1:
        model.ir_version = rng.choice((-1, 0, 3, 11, 99, 2**40))
    elif kind == 2:
        del model.opset_import[:]
    elif kind == 3:
        del rng.choice((graph.node, graph.input, graph.output, graph.initializer))[:]
    else:
        body = [helper.make_node("F", ["x"], ["y"], domain="d")]  # calls itself
        model.functions.append(helper.make_function("d", "F", ["x"], ["y"], body, [helper.make_opsetid("d", 1)]))
        model.opset_import.add(domain="d", version=1)
        graph.node[0].op_type, graph.node[0].domain = "F", "d"


def damaged_graph(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.35:
        return damage_bytes(data, rng)
    model = onnx.load_from_string(data)
    for _ in range(rng.randint(1, 3)):
        damage_graph(model, rng)
    changed: bytes = model.SerializeToString()
    return damage_bytes(changed, rng) if rng.random() < 0.1 else changed


def onnx_case(source: Path, folder: Path, rng: random.Random) -> Path:
    """A file as it is given to `eightfold export`, weights beside it."""
    shutil.copyfile(source / WEIGHTS, folder / "net.weights")
    target = folder / "net.onnx"
    target.write_bytes(damaged_graph((source / rng.choice(("net.onnx", GRAPH))).read_bytes(), rng))
    return target


def graph_case(source: Path, folder: Path, rng: random.Random) -> Path:
    """A bundle that is sound but for its graph."""
    shutil.copytree(source / "bundle", folder / "bundle")
    inside = rng.choice(GRAPHS)
    data = damaged_graph((source / rng.choice(("net.onnx", inside))).read_bytes(), rng)
    (folder / "bundle" / inside).write_bytes(data)
    manifest = json.loads((folder / "bundle" / "manifest.json").read_text())
    manifest["files"][inside] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_manifest(folder / "bundle", json.dumps(manifest).encode())
    return folder / "bundle"


CASES: dict[str, Mutation] = {
    "manifest": manifest_case,
    "zip": zip_case,
    "onnx": onnx_case,
    "graph": graph_case,
}
