from __future__ import annotations

from pathlib import Path

import pytest
import torch

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ModelError, UsageError
from eightfold.runtime.postprocess import decoder_of
from eightfold.zoo.sources.base import SourceOptions, SourceWarning
from eightfold.zoo.sources.darknet.source import darknet_task, open_darknet, split_source
from eightfold.zoo.sources.darknet.weights import save_weights
from eightfold.zoo.sources.registry import load_source, source_of
from tests.zoo.sources.darknet.networks import NET, RESIDUAL, network_of

REPOSITORY = Path(__file__).parents[4]


def test_without_weights_the_network_is_random_by_its_seed_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text(RESIDUAL)
    rest = str(tmp_path / "net.cfg")
    one, same, other = (open_darknet(rest, seed=seed) for seed in (1, 1, 2))
    assert one.origin == f"{rest}: no weights given, the network has random ones"
    first = "layers.0.operator.weight"
    assert torch.equal(one.network.get_parameter(first), same.network.get_parameter(first))
    assert not torch.equal(one.network.get_parameter(first), other.network.get_parameter(first))


def test_weights_stand_behind_a_plus(tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text(RESIDUAL)
    save_weights(network_of(RESIDUAL), tmp_path / "a+b.weights")
    opened = open_darknet(f"{tmp_path / 'net.cfg'}+{tmp_path / 'a+b.weights'}")
    assert opened.origin == f"{tmp_path / 'net.cfg'}: weights from {tmp_path / 'a+b.weights'}"
    assert torch.equal(
        opened.network.get_parameter("layers.0.operator.weight"),
        network_of(RESIDUAL).get_parameter("layers.0.operator.weight"),
    )


def test_the_registry_loads_it_with_its_size_its_heads_and_a_warning(tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text(RESIDUAL)
    text = f"darknet:{tmp_path / 'net.cfg'}"
    with pytest.warns(SourceWarning, match="no weights given, the network has random ones"):
        loaded = load_source(text, SourceOptions(size=(64, 32)))
    assert loaded.preprocess == Preprocess(height=64, width=32, resize="letterbox", pad_value=127)
    assert (loaded.task.decode, loaded.brings_weights, loaded.name) == ("yolo-anchors", False, "net")
    with torch.no_grad():
        assert loaded.module.eval()(*loaded.example_inputs()).shape == (1, 21, 32, 16)
    assert source_of(text).task(text, (64, 32)) == loaded.task


def test_the_registry_loads_weights_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text(
        f"{NET}[convolutional]\nfilters=4\nsize=1\nactivation=linear\n[avgpool]\n[softmax]\n"
    )
    save_weights(open_darknet(str(tmp_path / "net.cfg")).network, tmp_path / "net.weights")
    loaded = load_source(f"darknet:{tmp_path / 'net.cfg'}+{tmp_path / 'net.weights'}")
    assert loaded.brings_weights
    assert loaded.preprocess == Preprocess(height=32, width=32, resize="center-crop", shorter_side=32)


def test_wrong_ways_to_name_it_say_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"write darknet:nets/a\.cfg, or darknet:nets/a\.cfg\+FILE\.weights"):
        source_of("nets/a.cfg")
    with pytest.raises(UsageError, match=r"write darknet:nets/a\.cfg\+nets/a\.weights"):
        source_of("nets/a.weights")
    (tmp_path / "net.cfg").write_text(RESIDUAL)
    (tmp_path / "net.weights").write_bytes(b"0" * 64)
    with pytest.raises(ModelError, match=r"net\.weights is a file of Darknet; .*darknet:FILE\.cfg\+"):
        load_source(f"darknet:{tmp_path / 'net.cfg'}", SourceOptions(weights=tmp_path / "net.weights"))


@pytest.mark.parametrize("rest", ["net.weights", "net", "", "net.cfg+"])
def test_another_form(rest: str) -> None:
    with pytest.raises(UsageError, match=r"allowed: darknet: and then FILE.cfg, or FILE.cfg\+FILE.weights"):
        split_source(rest)


def test_the_network_of_the_repository_has_2_481_151_parameters_and_14_104_normed_channels() -> None:
    """The figures of the tutorial whose network it is."""
    network = open_darknet(str(REPOSITORY / "recipes/darknet/yolov3-mobilenetv2.cfg")).network
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_481_151
    assert sum(norm.num_features for norm in norms) == 14_104


def test_yolo_heads_become_options_of_the_decoder(tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text(RESIDUAL)
    task = darknet_task(tmp_path / "net.cfg")
    assert (task.kind, task.decode) == ("detect", "yolo-anchors")
    assert task.options == {"anchors": [[[8, 9], [14, 12], [20, 25]]], "scale_xy": [1], "box": "exp"}
    decoder_of(task)


@pytest.mark.parametrize(
    ("filters", "head", "classes"),
    [
        (14, "[yolo]\nclasses=2\nnum=2\nanchors=4,5, 6,7\n", 2),
        (8, "[region]\nclasses=3\nnum=1\nanchors=1,1\n", 3),
        (4, "[avgpool]\n[softmax]\n", 4),
    ],
)
def test_a_number_of_classes_is_that_of_the_cfg(tmp_path: Path, filters: int, head: str, classes: int) -> None:
    path, convolution = tmp_path / "net.cfg", f"[convolutional]\nfilters={filters}\nsize=1\nactivation=linear\n"
    path.write_text(NET + convolution + head)
    with pytest.warns(SourceWarning):
        load_source(f"darknet:{path}", SourceOptions(num_classes=classes))
    with pytest.raises(UsageError, match=rf"7 classes for darknet:.*allowed: {classes}, .*classes= and filters= in"):
        load_source(f"darknet:{path}", SourceOptions(num_classes=7))


def test_new_coords_are_the_sigmoid_form(tmp_path: Path) -> None:
    head = "[yolo]\nclasses=2\nanchors=4,5\nnew_coords=1\nscale_x_y=2\n"
    (tmp_path / "net.cfg").write_text(f"{NET}[convolutional]\nfilters=7\nsize=1\nactivation=logistic\n{head}")
    assert darknet_task(tmp_path / "net.cfg").options == {"anchors": [[[4, 5]]], "scale_xy": [2], "box": "sigmoid"}


def test_softmax_is_classification_and_the_rest_is_tensors(tmp_path: Path) -> None:
    convolution = "[convolutional]\nfilters=4\nsize=1\nactivation=linear\n"
    for end, kind in (("[avgpool]\n[softmax]\n", "classify"), ("", "tensors"), ("[softmax]\ngroups=2\n", "tensors")):
        (tmp_path / "net.cfg").write_text(NET + convolution + end)
        assert darknet_task(tmp_path / "net.cfg").kind == kind
