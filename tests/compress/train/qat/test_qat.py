"""Quantization-aware training against slow loops, torch's own fake quantization, and the exported graph."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

import eightfold as ef
from eightfold.calib.ranges import TensorRange
from eightfold.compress.train.devices import Devices
from eightfold.compress.train.hooks import Batch
from eightfold.compress.train.loop import fit
from eightfold.compress.train.options import LoopOptions
from eightfold.compress.train.qat.export import deployed, save_integers
from eightfold.compress.train.qat.hook import QuantizationSchedule, Stage, set_bits
from eightfold.compress.train.qat.layers import quantized_layers
from eightfold.compress.train.qat.prepare import QatOptions, prepare_qat
from eightfold.compress.train.qat.quantizers import (
    SCHEMES,
    ActivationForm,
    ActivationQuantizer,
    ChannelMaximum,
    ShiftedWeight,
    Tanh,
    register_scheme,
)
from eightfold.compress.train.qat.rounding import Integers, fake_quantize, softened
from eightfold.compress.train.qat.start_ranges import layer_ranges, observed_ranges
from eightfold.errors import CalibrationError, ModelError, UnknownNameError, UsageError

IMAGE = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(5))
CPU = Devices("cpu", "off")


class Small(nn.Module):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depth, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.last, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(x)))
        x = x + torch.relu(self.norm2(self.depth(x)))
        out: Tensor = self.head(torch.tanh(self.last(x)).mean((2, 3)))
        return out


def used_network() -> Small:
    """With batch norms away from their start."""
    torch.manual_seed(0)
    model = Small()
    for norm in (model.norm1, model.norm2):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.2)
    for _ in range(20):
        model(torch.rand(8, 3, 12, 12))
    return model.eval()


def batch_at(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    images = torch.rand(16, 3, 12, 12, generator=generator)
    return Batch((images,), (images.mean((2, 3)).argmax(1)))


def test_rounding_is_that_of_torch_and_of_a_loop() -> None:
    x = torch.randn(40) * 3
    scale, zero = torch.tensor(0.037), torch.tensor(12.0)
    ours = fake_quantize(x, scale, zero, Integers.unsigned(8))
    torch.testing.assert_close(ours, torch.fake_quantize_per_tensor_affine(x, 0.037, 12, 0, 255))
    slow = [(min(max(round(v / 0.037), -12), 243)) * 0.037 for v in x.double().tolist()]
    np.testing.assert_allclose(ours.numpy(), slow, atol=1e-5)


def test_the_gradient_of_a_learned_step_is_the_papers() -> None:
    x, step = torch.randn(50) * 2, torch.tensor(0.1, requires_grad=True)
    grid = Integers.weights(4)
    upstream = torch.randn(50)
    (fake_quantize(x, softened(step, 50, grid), torch.zeros(()), grid) * upstream).sum().backward()  # type: ignore[no-untyped-call]
    slow = 0.0
    for value, gradient in zip(x.tolist(), upstream.tolist(), strict=True):
        ratio = value / 0.1
        inner = -7 if ratio <= -7 else 7 if ratio >= 7 else round(ratio) - ratio
        slow += gradient * inner / math.sqrt(50 * 7)
    assert step.grad is not None
    assert float(step.grad) == pytest.approx(slow, rel=1e-4)


def test_weight_scales_cover_each_channel() -> None:
    weight = torch.randn(6, 3, 3, 3)
    rounded = ChannelMaximum(4)(weight)
    for channel in range(6):
        own = weight[channel].abs().max() / 7
        expected = torch.fake_quantize_per_tensor_affine(weight[channel], float(own), 0, -7, 7)
        torch.testing.assert_close(rounded[channel], expected)
    assert len(rounded[0].unique()) <= 15


def test_dorefa_bends_and_keeps_magnitude_and_zero() -> None:
    weight = torch.tensor([[-2.0, 0.0, 0.1, 1.0]])
    bent = [math.tanh(w) / math.tanh(2.0) for w in (-2.0, 0.0, 0.1, 1.0)]
    slow = [round(b * 7) / 7 * 2.0 for b in bent]
    np.testing.assert_allclose(Tanh(4)(weight)[0].numpy(), slow, atol=1e-6)


def test_powers_of_two_take_the_better_neighbour() -> None:
    for seed in range(5):
        weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))
        scale = float(ShiftedWeight(4).scale(weight))
        assert math.log2(scale) == round(math.log2(scale))
        error = {
            power: float((torch.clamp(torch.round(weight / 2**power), -7, 7) * 2**power - weight).square().sum())
            for power in range(-6, 2)
        }
        assert error[round(math.log2(scale))] == min(error.values())


def test_in_evaluation_a_layer_computes_the_rounded_folded_convolution() -> None:
    model = used_network()
    twin = copy.deepcopy(model)
    prepare_qat(model, IMAGE, ranges={"conv1": TensorRange(min=0, max=1, low=0, high=1, threshold=1)})
    layer = model.conv1
    with torch.no_grad():
        seen = layer.eval()(IMAGE)
        factor = twin.norm1.weight / torch.sqrt(twin.norm1.running_var + twin.norm1.eps)  # type: ignore[arg-type, operator]
        folded = twin.conv1.weight * factor[:, None, None, None]
        scale = folded.abs().flatten(1).amax(1) / 127
        weight = torch.fake_quantize_per_channel_affine(folded, scale, torch.zeros(8, dtype=torch.int32), 0, -127, 127)
        x = torch.fake_quantize_per_tensor_affine(IMAGE, 1 / 255, 0, 0, 255)
        bias = twin.norm1.bias - twin.norm1.running_mean * factor  # type: ignore[operator]
        torch.testing.assert_close(seen, torch.nn.functional.conv2d(x, weight, bias, padding=1))


def test_training_with_fine_grids_is_training_in_float() -> None:
    """With 2^30 integers nothing is rounded: outputs, gradients and running statistics are the float network's."""
    model = used_network().train()
    twin = copy.deepcopy(model)
    prepare_qat(model, IMAGE)
    for layer in quantized_layers(model).values():
        layer.weight_quantizer.bits = 30
        layer.input_quantizer = nn.Identity()  # type: ignore[assignment]  # no rounding
    for network in (model, twin):
        mse_loss(network(IMAGE), torch.ones(2, 4)).backward()  # type: ignore[no-untyped-call]
    layer = quantized_layers(model)["conv1"]
    torch.testing.assert_close(layer.layer.weight.grad, twin.conv1.weight.grad, rtol=1e-3, atol=1e-5)
    assert layer.norm is not None
    torch.testing.assert_close(layer.norm.running_mean, twin.norm1.running_mean)
    torch.testing.assert_close(layer.norm.running_var, twin.norm1.running_var)
    torch.testing.assert_close(layer.norm.weight.grad, twin.norm1.weight.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
@pytest.mark.parametrize("target", ["cpu-x86", "rtx:sm86"])
def test_the_exported_graph_agrees_with_the_trained_module(scheme: str, target: str, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    model = used_network()
    ranges = observed_ranges(model, [(IMAGE,)], method="minmax") if target == "cpu-x86" else None
    done = prepare_qat(model, IMAGE, ranges=ranges, options=QatOptions(scheme, target=target))
    assert len(done.quantized) == 4
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    hooks = [QuantizationSchedule()]
    fit(model, batch_at, optimizer, LoopOptions(steps=12), loss=cross_entropy, hooks=hooks, devices=CPU)
    path = ef.export_qat(model, tmp_path / "qat.onnx", batch=16, image_size=12, targets=[target])
    graph = onnx.load(path)
    kinds = [node.op_type for node in graph.graph.node]
    # Both operands of the addition are rounded under pow2; a layer's input of the same scale shares its pair.
    assert kinds.count("DequantizeLinear") in ((9, 10) if scheme == "pow2" else (8,))
    assert "BatchNormalization" not in kinds
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (images,) = batch_at(100).inputs
    with torch.no_grad():
        wanted = model.eval()(images).numpy()
    (seen,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    np.testing.assert_allclose(seen, wanted, atol=0.02 * np.abs(wanted).max())
    assert (seen.argmax(1) == wanted.argmax(1)).all()


def test_ranges_come_from_the_calibration_of_the_exported_graph(tmp_path: Path) -> None:
    model = used_network()
    path = ef.export_onnx(model, tmp_path / "float.onnx", batch=2, image_size=12)
    ranges = ef.calibrate(path, list(IMAGE.numpy()), None, method="minmax")
    found = layer_ranges(model, IMAGE, path, ranges)
    observed = observed_ranges(model, [(IMAGE,)], method="minmax")
    assert list(found) == ["conv1", "depth", "last", "head"]
    for name, each in found.items():
        assert (each.low, each.high) == pytest.approx((observed[name].low, observed[name].high), rel=1e-3, abs=1e-5)
    with pytest.raises(CalibrationError, match=r"has no layer for 'head' \(3, 8\)"):
        layer_ranges(Small(3), IMAGE, path, ranges)


def test_observed_ranges_are_averaged_and_then_frozen() -> None:
    quantizer = ActivationQuantizer(ActivationForm(8, signed=False, symmetric=False), None).train()
    quantizer(torch.tensor([-1.0, 3.0]))
    quantizer(torch.tensor([-2.0, 5.0]))
    assert (float(quantizer.low), float(quantizer.high)) == pytest.approx((-1.1, 3.2))
    quantizer.frozen = True
    quantizer(torch.tensor([-9.0, 9.0]))
    assert float(quantizer.high) == pytest.approx(3.2)


def test_stages_narrow_the_grids_and_learned_scales_go_on_covering() -> None:
    model = used_network()
    ranges = observed_ranges(model, [(IMAGE,)])
    prepare_qat(model, IMAGE, ranges=ranges, options=QatOptions("lsq", 4, 4, eight_bit_layers=["head"]))
    layer = quantized_layers(model)["last"]
    reach = layer.weight_quantizer.scale(layer.layer.weight)[0].item() * 7
    set_bits(layer, 8, 8)
    assert layer.weight_quantizer.scale(layer.layer.weight)[0].item() * 127 == pytest.approx(reach)
    before = layer.input_quantizer.scale_and_zero()
    set_bits(layer, 8, 4)
    set_bits(layer, 4, 8)
    after = layer.input_quantizer.scale_and_zero()
    assert after[0].item() == pytest.approx(before[0].item())
    assert after[1].item() == pytest.approx(before[1].item(), abs=9)
    set_bits(layer, 4, 4)
    seen: list[tuple[int, int]] = []

    class Watch(QuantizationSchedule):
        def after_step(self, run):  # type: ignore[no-untyped-def]
            super().after_step(run)
            seen.append((layer.weight_quantizer.bits, quantized_layers(model)["head"].weight_quantizer.bits))

    hooks = [Watch([Stage(0.0, 8, 8), Stage(0.5, 6, 8), Stage(0.75, 4, 4)])]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    fit(model, batch_at, optimizer, LoopOptions(steps=8), loss=cross_entropy, hooks=hooks, devices=CPU)
    assert seen[0] == (8, 8)
    assert seen[-1] == (4, 8)
    assert (6, 8) in seen
    with pytest.raises(UsageError, match=r"start at \[0.5, 0.2\]"):
        QuantizationSchedule([Stage(0.5, 8, 8), Stage(0.2, 4, 4)])


def test_a_power_of_two_network_is_written_as_integers_with_shifts(tmp_path: Path) -> None:
    model = used_network()
    options = QatOptions("pow2", target="rtx:sm86")
    prepare_qat(model, IMAGE, ranges=observed_ranges(model, [(IMAGE,)]), options=options)
    with pytest.raises(ModelError, match="is prepared for quantization already"):
        prepare_qat(model, IMAGE)
    folder = save_integers(model, tmp_path / "integers")
    tensors, shifts = load_file(folder / "weights.safetensors"), json.loads((folder / "shifts.json").read_text())
    layer = quantized_layers(model.eval())["conv1"]
    x = torch.round(torch.clamp(IMAGE * 2.0 ** shifts["conv1"]["input"], -128, 127)).double()
    product = torch.nn.functional.conv2d(x, tensors["conv1.weight"].double(), padding=1)
    total = product + tensors["conv1.bias"].double()[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close((total * 2.0 ** -shifts["conv1"]["bias"]).float(), layer(IMAGE))
    assert shifts["add0"].keys() == {"operands"}
    prepare_qat(other := used_network(), IMAGE, ranges=observed_ranges(used_network(), [(IMAGE,)]))
    with pytest.raises(ModelError, match="no power of two"):
        save_integers(other, tmp_path / "no")
    assert not (tmp_path / "no").exists()


class Branches(nn.Module):
    """Adds in two ways and concatenates; biases and numbers are no joins."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        z = self.second(y) + y * 2.0 + 1.0
        z += y
        out: Tensor = self.head(torch.cat([z, y], 1)).mean((2, 3))
        return out


def on_grid(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    return torch.clamp(torch.round(x.double() / scale), low, high).float() * scale


def test_branches_are_joined_on_one_power_of_two(tmp_path: Path) -> None:
    import onnx

    torch.manual_seed(1)
    model = Branches().eval()
    plain = copy.deepcopy(model)
    options = QatOptions("pow2", target="rtx:sm86")
    done = prepare_qat(model, IMAGE, ranges=observed_ranges(model, [(IMAGE,)], method="minmax"), options=options)
    assert done.joins == ("add0", "add1", "cat2")
    assert "3 additions and concatenations" in done.describe()
    scales = {}
    for name in done.joins:
        quantizer = model.get_submodule(f"joins.quantizers.{name}")
        assert isinstance(quantizer, ActivationQuantizer)
        scales[name] = float(quantizer.scale_and_zero()[0])
    with torch.no_grad():
        y = torch.relu(model.first(IMAGE))
        parts = [on_grid(each, scales["add0"], -128, 127) for each in (model.second(y), y * 2.0)]
        z = parts[0] + parts[1] + 1.0
        z = on_grid(z, scales["add1"], -128, 127) + on_grid(y, scales["add1"], -128, 127)
        joined = torch.cat([on_grid(each, scales["cat2"], -128, 127) for each in (z, y)], 1)
        torch.testing.assert_close(model(IMAGE), model.head(joined).mean((2, 3)))
        # Each scale covers operands and result, and no more than twice that.
        y = torch.relu(plain.first(IMAGE))
        first = plain.second(y) + y * 2.0
        reach = max(float(each.abs().max()) for each in (plain.second(y), y * 2.0, first)) / 127
        assert reach <= scales["add0"] < 2 * reach
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(IMAGE), model(IMAGE))
    twin.train()(IMAGE).sum().backward()
    assert all(each.grad is not None for each in twin.parameters())
    graph = onnx.load(ef.export_qat(model, tmp_path / "qat.onnx", batch=1, image_size=12, targets=["rtx:sm86"])).graph
    made = {name: node for node in graph.node for name in node.output}
    values = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    values |= {n.output[0]: onnx.numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"}
    (cat,) = (node for node in graph.node if node.op_type == "Concat")
    pairs = [made[name] for name in cat.input]
    assert [node.op_type for node in pairs] == ["DequantizeLinear"] * 2
    assert [float(values[node.input[1]]) for node in pairs] == [scales["cat2"]] * 2


def test_a_way_through_the_code_with_more_joins_is_refused() -> None:
    class Sometimes(Branches):
        twice = False

        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            return out + out if self.twice else out

    model = Sometimes().eval()
    prepare_qat(model, IMAGE, options=QatOptions("pow2"))
    model.twice = True
    with pytest.raises(ModelError, match="joins more than 3 times in this pass"):
        model(IMAGE)
    assert model.first(IMAGE) + model.first(IMAGE) is not None  # no mode is left behind


@pytest.mark.parametrize("scheme", ["affine", "lsq", "pow2"])
def test_rtx_builds_the_trained_graph(scheme: str, tmp_path: Path) -> None:
    """The real parser and builder; with signed, symmetric activations."""
    pytest.importorskip("tensorrt_rtx")
    model = used_network()
    options = QatOptions(scheme, target="rtx:sm86")
    prepare_qat(model, IMAGE, ranges=observed_ranges(model, [(IMAGE,)]), options=options)
    path = ef.export_qat(model, tmp_path / "qat.onnx", batch=1, image_size=12, targets=["rtx:sm86"])
    engine = ef.build_engine(path, tmp_path / "qat.engine", target="rtx:sm86", precision="int8")
    assert engine.stat().st_size > 0


def test_bad_input_is_one_line() -> None:
    with pytest.raises(UsageError, match="1 bits of weights; allowed: 2 to 8"):
        QatOptions(weight_bits=1)
    with pytest.raises(UnknownNameError, match="did you mean 'affine'"):
        QatOptions("afine")
    with pytest.raises(UnknownNameError, match="unknown layer 'hed'"):
        prepare_qat(used_network(), IMAGE, options=QatOptions(float_layers=["hed"]))
    with pytest.raises(ModelError, match="no layer of the network"):
        prepare_qat(nn.Sequential(nn.ReLU()), IMAGE)
    model = used_network()
    done = prepare_qat(model, IMAGE, options=QatOptions(float_layers=["head"]))
    assert "float: head (asked to stay float)" in done.describe()
    with pytest.raises(ModelError, match="the input of the layer 'conv1' has no range"):
        deployed(model)
    with pytest.raises(ModelError, match="no layers that round"):
        deployed(used_network())
    with pytest.raises(UsageError, match="'lsq' exists"):
        register_scheme("lsq", SCHEMES["lsq"])
