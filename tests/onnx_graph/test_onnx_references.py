from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from eightfold.onnx_graph.onnx_references import (
    WAYS,
    ExternalReference,
    NotOnnxError,
    external_references,
    references_in,
)


def external(location: str = "w.bin", **numbers: object) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **numbers}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def graph_with(*nodes: onnx.NodeProto, tensors: tuple[TensorProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], list(tensors))


def bytes_of(graph: onnx.GraphProto, **extra: Any) -> bytes:
    data: bytes = helper.make_model(graph, **extra).SerializeToString()
    return data


def test_the_ways_to_a_tensor_are_those_of_the_format() -> None:
    """The oracle is onnx's own description of its format."""

    def reaches(message: Any, above: tuple[str, ...] = ()) -> bool:
        if message.name == "TensorProto":
            return True
        inner = [field.message_type for field in message.fields if field.message_type]
        return message.name not in above and any(reaches(each, (*above, message.name)) for each in inner)

    for name, ways in WAYS.items():
        if name != "TensorProto":
            fields = getattr(onnx, name).DESCRIPTOR.fields
            wanted = {each.number: each.message_type.name for each in fields if each.message_type}
            assert ways == {
                number: message for number, message in wanted.items() if reaches(getattr(onnx, message).DESCRIPTOR)
            }
    assert TensorProto.DESCRIPTOR.fields_by_name["external_data"].number in WAYS["TensorProto"]


def test_references_are_found_wherever_a_tensor_can_be() -> None:
    tensors = [external(f"{index}.bin") for index in range(7)]
    inner = graph_with(helper.make_node("Constant", [], ["c"], value=tensors[0]), tensors=(tensors[1],))
    loop = helper.make_node("If", ["x"], ["y"], then_branch=inner)
    listed = helper.make_node("Custom", [], ["z"])
    listed.attribute.append(onnx.AttributeProto(name="all", type=onnx.AttributeProto.TENSORS, tensors=[tensors[2]]))
    graph = graph_with(loop, listed, tensors=(tensors[3],))
    graph.sparse_initializer.add(values=tensors[4], indices=tensors[5])
    function = helper.make_function(
        "d", "F", [], ["c"], [helper.make_node("Constant", [], ["c"], value=tensors[6])], [helper.make_opsetid("", 17)]
    )
    found = references_in(bytes_of(graph, functions=[function]))
    assert sorted(each.location for each in found) == [f"{index}.bin" for index in range(7)]


def test_offsets_and_lengths() -> None:
    tensors = (external(offset=4096, length=8), external("v.bin"), external(offset=8, length=0))
    assert sorted(references_in(bytes_of(graph_with(tensors=tensors))), key=lambda each: each.offset) == [
        ExternalReference("v.bin", 0, None),
        ExternalReference("w.bin", 8, None),
        ExternalReference("w.bin", 4096, 8),
    ]
    assert ExternalReference("w.bin", 4096, 8).end_bytes == 4104


@pytest.mark.parametrize("numbers", [{"offset": -1}, {"length": "1e3"}, {"offset": 10**18}, {"offset": "٣"}])
def test_numbers_that_are_none(numbers: dict[str, object]) -> None:
    with pytest.raises(NotOnnxError, match=f"the {next(iter(numbers))} of a tensor is"):
        references_in(bytes_of(graph_with(tensors=(external("w.bin", **numbers),))))


def test_a_location_that_is_given_twice_is_not_guessed() -> None:
    tensor = external("a.bin")
    tensor.external_data.add(key="location", value="b.bin")
    with pytest.raises(NotOnnxError, match="does not state its location exactly once"):
        references_in(bytes_of(graph_with(tensors=(tensor,))))


def test_a_message_in_two_pieces_is_read_whole() -> None:
    """Protobuf merges what occurs twice; so may a graph, one half of which would otherwise go unseen."""
    harmless, other = bytes_of(graph_with()), bytes_of(graph_with(tensors=(external("b.bin"),)))
    merged = onnx.load_from_string(harmless + other)
    assert merged.graph.initializer[0].external_data
    assert references_in(harmless + other) == [ExternalReference("b.bin")]


@pytest.mark.parametrize("data", [b"hello world", b"\x3a\x7f", b"\xff" * 12, b"\x0b\x0c", b"\x00\x00", b"\x3d\x01"])
def test_what_is_no_protobuf_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(data)
    with pytest.raises(NotOnnxError):
        external_references(tmp_path / "x.onnx")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").touch()
    with pytest.raises(NotOnnxError, match="it is empty"):
        external_references(tmp_path / "x.onnx")


@given(st.binary(max_size=200), st.data())
def test_whatever_onnx_reads_holds_no_reference_that_is_not_found(noise: bytes, data: st.DataObject) -> None:
    """Damaged graphs: where onnx still finds an external tensor, it was found here, or the graph was refused."""
    whole = bytes_of(graph_with(tensors=(external("a.bin", offset=1), external("b.bin"))))
    at = data.draw(st.integers(0, len(whole)))
    damaged = whole[:at] + noise + whole[at + data.draw(st.integers(0, 8)) :]
    try:
        seen = {each.location for each in references_in(damaged)}
    except NotOnnxError:
        return
    try:
        model = onnx.load_from_string(damaged)
    except Exception:  # protobuf's own class, which its packages name differently
        return
    for tensor in model.graph.initializer:
        located = [entry.value for entry in tensor.external_data if entry.key == "location"]
        # protobuf hands out what is not UTF-8 as bytes
        assert {each if isinstance(each, str) else each.decode(errors="surrogateescape") for each in located} <= seen
