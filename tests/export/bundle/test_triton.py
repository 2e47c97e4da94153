"""A Triton model repository: its configuration is read by protobuf's own text parser, its file by onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from onnx import TensorProto, helper

from eightfold.calib.images.preprocess import Preprocess
from eightfold.cli.app import main
from eightfold.errors import BundleError, UsageError
from eightfold.export.bundle.triton import triton_config, write_triton
from eightfold.export.bundle.write import onnx_artifact, write_bundle
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Task

# Fields of Triton's model_config.proto that are used: name, number, type.
TENSOR = (("name", 1, "TYPE_STRING"), ("data_type", 2, "TYPE_ENUM"), ("dims", 4, "TYPE_INT64"))
OUTPUT = (("name", 1, "TYPE_STRING"), ("data_type", 2, "TYPE_ENUM"), ("dims", 3, "TYPE_INT64"))
DATA_TYPES = (
    "TYPE_INVALID",
    "TYPE_BOOL",
    "TYPE_UINT8",
    "TYPE_INT32",
    "TYPE_INT64",
    "TYPE_FP16",
    "TYPE_FP32",
    "TYPE_INT8",
)


def parsed(text: str) -> Any:
    """The configuration as a message of Triton's schema, as far as it is stated above."""
    file = descriptor_pb2.FileDescriptorProto(name="config.proto", package="inference", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    enum = file.enum_type.add(name="DataType")
    for number, name in enumerate(DATA_TYPES):
        enum.value.add(name=name, number=number)
    for message, fields in (("ModelInput", TENSOR), ("ModelOutput", OUTPUT)):
        described = file.message_type.add(name=message)
        for name, number, kind in fields:
            label = kinds.LABEL_REPEATED if name == "dims" else kinds.LABEL_OPTIONAL
            field = described.field.add(name=name, number=number, type=getattr(kinds, kind), label=label)
            if kind == "TYPE_ENUM":
                field.type_name = ".inference.DataType"
    whole = file.message_type.add(name="ModelConfig")
    for name, number, kind in (("name", 1, kinds.TYPE_STRING), ("platform", 2, kinds.TYPE_STRING)):
        whole.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    whole.field.add(name="max_batch_size", number=4, type=kinds.TYPE_INT32, label=kinds.LABEL_OPTIONAL)
    for name, number, kind in (("input", 5, "ModelInput"), ("output", 6, "ModelOutput")):
        whole.field.add(
            name=name,
            number=number,
            type=kinds.TYPE_MESSAGE,
            label=kinds.LABEL_REPEATED,
            type_name=f".inference.{kind}",
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))()
    text_format.Parse(text, message)
    return message


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3, 8, 8]) for name in ("images", 'o"ut')]
    graph = helper.make_graph([helper.make_node("Relu", ["images"], ['o"ut'])], "g", shape[:1], shape[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "net.onnx"))
    made = write_bundle(
        tmp_path / "bundle",
        name="small",
        task=Task(kind="tensors", decode="tensors"),
        preprocess=Preprocess(height=8, width=8),
        artifacts=[onnx_artifact(tmp_path / "net.onnx", id="fp32-b2", inside="onnx/net.onnx", variant="v")],
        files={"onnx/net.onnx": tmp_path / "net.onnx"},
    )
    return Bundle.open(made)


def test_the_repository_says_what_the_file_is(bundle: Bundle, tmp_path: Path) -> None:
    folder = write_triton(bundle, "fp32-b2", tmp_path / "models", name="relu")
    assert folder == tmp_path / "models/relu"
    config = parsed((folder / "config.pbtxt").read_text())
    assert (config.name, config.platform, config.max_batch_size) == ("relu", "onnxruntime_onnx", 0)
    session = onnxruntime.InferenceSession(str(folder / "1/model.onnx"), providers=["CPUExecutionProvider"])
    for stated, real in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [(each.name, list(each.dims)) for each in stated] == [(each.name, each.shape) for each in real]
        assert [DATA_TYPES[each.data_type] for each in stated] == ["TYPE_FP32"]


def test_the_command(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["eightfold", "triton", str(bundle.path), "-o", str(tmp_path / "models")])
    assert main() == 0
    assert (tmp_path / "models/fp32-b2/config.pbtxt").is_file()


def test_an_engine_of_tensorrt_is_a_plan_and_others_are_refused(bundle: Bundle) -> None:
    artifact = bundle.manifest.artifacts[0]
    engine = artifact.model_copy(update={"format": "engine", "target": "tensorrt:10.3"})
    assert 'platform: "tensorrt_plan"' in triton_config(engine, "plan")
    for changed in ({"format": "engine", "target": "rtx:sm86"}, {"format": "openvino"}):
        with pytest.raises(BundleError, match=r"Triton has no back end for fp32-b2 .*; allowed: an ONNX file"):
            triton_config(artifact.model_copy(update=changed), "other")


def test_bad_names(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the model name 'a/b'; allowed: letters, digits"):
        write_triton(bundle, "fp32-b2", tmp_path / "models", name="a/b")
    with pytest.raises(BundleError, match="holds no artifact 'int8'; allowed: fp32-b2"):
        write_triton(bundle, "int8", tmp_path / "models")
