"""The page on extending, followed word for word: an invented thing of each kind is used as the built-in ones are."""

from __future__ import annotations

import re
import subprocess
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
# What each section registers is then used by; the oracle is numpy or what the page says of it.
USES = {
    "a-back-end": """
        import numpy as np, onnx
        from onnx import TensorProto, helper
        from eightfold.calib.images.preprocess import Preprocess
        from eightfold.runtime.backends import open_session
        from eightfold.runtime.backends.targets import targets_of
        from eightfold.runtime.bundle.manifest import Artifact
        from eightfold.runtime.predict.select_artifact import ArtifactRequest, select_artifact
        from eightfold.runtime.doctor.doctor import SECTIONS

        graph = helper.make_graph(
            [helper.make_node("Neg", ["images"], ["out"])], "g",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 4, 4])],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3, 4, 4])],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "neg.onnx")
        session = open_session(Path("neg.onnx"), "onnx-reference")
        slot, rows = session.new_slot(), np.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(np.float32)
        slot.run_on({"images": rows})
        np.testing.assert_array_equal(slot.outputs["out"], -rows)
        import eightfold as ef
        table = ef.bench("neg.onnx", batches=[1], backends=["onnxruntime", "onnx-reference"], seconds=0.02)
        assert {row.backend for row in table.rows} == {"onnxruntime", "onnx-reference"}
        assert targets_of("onnx-reference") == ("abacus",)
        specs = [{"name": "images", "dtype": "float32", "shape": [1, 3, 4, 4]}]
        artifact = Artifact.model_validate({
            "id": "a", "path": "a.onnx", "format": "onnx", "variant": "pruned", "precision": "fp32", "target": "any",
            "batch": 1, "inputs": specs, "outputs": specs,
        })
        rules = Preprocess(height=4, width=4)
        assert select_artifact([artifact], rules, ["onnx-reference"], ArtifactRequest()).backend == "onnx-reference"
        both = ["onnx-reference", "onnxruntime"]
        assert select_artifact([artifact], rules, both, ArtifactRequest()).backend == "onnxruntime"
    """,
    "an-int8-target": """
        import numpy as np, onnx, torch
        import eightfold as ef
        from torch import nn
        from eightfold.export.opset.opsets import newest_opset
        from eightfold.recipe_deployment import QuantizeSection

        assert newest_opset("abacus") == 16
        ef.export_onnx(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval(), "net.onnx", batch=1, image_size=8)
        rows = [np.random.default_rng(0).random((3, 8, 8), np.float32) for _ in range(4)]
        ranges = ef.calibrate("net.onnx", rows, None, method="minmax")
        ef.quantize("net.onnx", ranges, "int8.onnx", target="abacus")
        assert "QuantizeLinear" in {node.op_type for node in onnx.load("int8.onnx").graph.node}
        assert QuantizeSection(targets=("abacus",)).targets == ("abacus",)
    """,
    "a-calibration-method": """
        import eightfold as ef, numpy as np
        from torch import nn
        from eightfold.recipe_deployment import CalibrateSection

        ef.export_onnx(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval(), "net.onnx", batch=1, image_size=8)
        rows = [np.random.default_rng(seed).normal(size=(3, 8, 8)).astype(np.float32) for seed in range(8)]
        ranges = ef.calibrate("net.onnx", rows, None, method="three-sigma")
        assert ranges.method == CalibrateSection(method="three-sigma").method == "three-sigma"
        assert ef.Ranges.from_json(ranges.to_json()) == ranges
        import onnxruntime, onnx
        inner = [name for name in ranges.tensors if name not in ("images",)][0]
        model = onnx.load("net.onnx")
        del model.graph.output[:]
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(inner))
        session = onnxruntime.InferenceSession(model.SerializeToString())
        feed = session.get_inputs()[0].name
        seen = np.stack([session.run(None, {feed: row[None]})[0] for row in rows]).astype(np.float64)
        high = min(seen.max(), seen.mean() + 3 * seen.std())
        assert abs(ranges.tensors[inner].high - high) < 1e-5
    """,
    "a-score-of-channels": """
        import torch, eightfold as ef
        from torch import nn

        network = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 1))
        plan = ef.plan_pruning(network, torch.rand(1, 3, 8, 8), score="first")
        assert [sorted(kept) for kept in plan.kept.values()] == [list(range(16))]
    """,
    "a-simplification-pass": """
        import onnx, eightfold as ef
        from onnx import TensorProto, helper
        from eightfold.export.simplify.passes.run import apply_passes

        nodes = [helper.make_node("Neg", [a], [b]) for a, b in (("x", "a"), ("a", "b"))]
        nodes.append(helper.make_node("Relu", ["b"], ["y"]))
        info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
        graph = helper.make_graph(nodes, "g", info[:1], info[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        assert apply_passes(model)["double_negation"] == 1
        assert [node.op_type for node in model.graph.node] == ["Relu"]
    """,
    "a-decoder": """
        import numpy as np
        from eightfold.calib.images.preprocess import Preprocess
        from eightfold.cli.options import task_named
        from eightfold.runtime.bundle.manifest import Task
        from eightfold.runtime.postprocess import decoder_of

        assert task_named("sign").kind == "classify"
        decode = decoder_of(Task(kind="classify", decode="sign", labels=("no", "yes"), options={"threshold": 1.0}))
        place = Preprocess(height=4, width=4).place(4, 4)
        answers = decode({"out": np.array([[2.0], [0.5]], np.float32)}, [place, place])
        assert [answer.label for answer in answers] == ["yes", "no"]
    """,
    "a-task": """
        import numpy as np
        from eightfold.calib.images.image_set import ImageSet
        from eightfold.calib.images.preprocess import Preprocess
        from eightfold.recipe_sections import TaskSection
        from eightfold.tasks.kinds import task_of

        task = task_of(TaskSection(kind="classify-balanced"))
        pixels = [np.full((4, 4, 3), value, np.uint8) for value in (0, 0, 0, 255)]
        images = ImageSet(tuple(pixels), (0, 0, 0, 1), ("dark", "light"))
        always = lambda rows: {"out": np.tile([1.0, 0.0], (len(rows), 1))}
        always_dark = Network(always, 1, Preprocess(height=4, width=4), task.outputs_mean(images.classes))
        assert task.evaluate(always_dark, images) == {"balanced": 0.5}
        assert task.chance(images) == 0.5
    """,
    "a-sparsity-penalty": """
        import torch, eightfold as ef

        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        with ef.sparsify(model, s=0.25, penalty="squares") as sparse:
            optimizer.zero_grad()
            optimizer.step()
        assert model[1].weight.tolist() == [0.75] * 4 and sparse.steps == 1
    """,
    "a-distillation-loss": """
        import torch, eightfold as ef

        x = torch.tensor([[[[1.0]], [[0.0]]]])
        assert float(ef.distillation_loss(x, x.flip(1), method="directions")) == 1.0
        ef.DistillOptions({"directions": 1.0})
    """,
    "a-scheme-of-quantization-aware-training": """
        from torch import nn
        import eightfold as ef

        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        ef.prepare_qat(model, torch.rand(1, 3, 8, 8), options=ef.QatOptions("three-sigmas"))
        weight = model[0].weight_quantizer(model[0].layer.weight)
        spread = model[0].layer.weight.flatten(1).std(1)
        assert torch.allclose(model[0].weight_quantizer.scale(model[0].layer.weight) * 127, 3 * spread)
        assert (weight.abs().flatten(1).amax(1) <= 3 * spread + 1e-6).all()
    """,
    "a-loss-of-detectors": """
        from eightfold.runtime.postprocess.yolo import YoloBoxes
        from eightfold.tasks.detection.losses import detection_loss
        from eightfold.tasks.detection.targets import padded_targets
        import numpy as np

        loss = detection_loss("yolo-boxes", YoloBoxes(), 2)
        targets = padded_targets([np.array([[1.0, 1, 4, 4]]), np.zeros((0, 4))], [np.array([1]), np.zeros(0, int)])
        assert float(loss([torch.full((2, 6, 3, 3), -50.0)], targets, (8, 8))) == 0.5
    """,
    "a-model-source": """
        from eightfold.zoo.sources.base import SourceOptions
        from eightfold.zoo.sources.registry import load_source
        from eightfold.zoo.sources.registry import forms

        network = load_source("plain:24", SourceOptions(num_classes=3)).module
        assert network[0].out_channels == 24 and network[-1].out_features == 3
        assert "plain:WIDTH" in forms()
    """,
}


def sections() -> dict[str, str]:
    """Anchor -> the code of that section."""
    found = re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    code = {title.lower().replace(" ", "-"): re.findall(r"```python\n(.*?)```", text, re.S) for title, text in found}
    return {anchor: "\n".join(blocks) for anchor, blocks in code.items()}


def test_every_section_is_followed() -> None:
    assert sections().keys() == USES.keys()
    assert {f"(#{anchor})" for anchor in USES} <= set(re.findall(r"\(#[a-z0-9-]+\)", PAGE))


@pytest.mark.parametrize("anchor", USES)
def test_the_page_word_for_word(anchor: str, tmp_path: Path, warm_python: str) -> None:
    """In a process of its own: what is registered stays registered."""
    code = sections()[anchor] + textwrap.dedent(USES[anchor])
    again = sections()[anchor].rstrip().rpartition("\nregister_")[2]
    code += f"""
try:
    register_{textwrap.indent(again, "    ").lstrip()}
except Exception as error:
    assert "exists" in str(error), error
else:
    raise AssertionError("a name that is taken was not refused")
"""
    (tmp_path / "page.py").write_text(code)
    done = subprocess.run([warm_python, "page.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
