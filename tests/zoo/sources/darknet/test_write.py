from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.masked_reference import random_plan
from torch import nn

from eightfold.compress.plan_pruning import plan_module
from eightfold.compress.prune import prune_module
from eightfold.compress.surgery.blocks import Bypass
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.compress.trace.trace import trace
from eightfold.errors import ModelError, VerificationError
from eightfold.zoo.sources.darknet.cfg import read_cfg
from eightfold.zoo.sources.darknet.header import Header
from eightfold.zoo.sources.darknet.network import DarknetNetwork, build_network
from eightfold.zoo.sources.darknet.weights import load_darknet_weights
from eightfold.zoo.sources.darknet.write import described, write_pair
from tests.zoo.sources.darknet.networks import (
    NET,
    PACKAGE,
    RESIDUAL,
    assert_as_darknet,
    lively,
    needs_darknet,
    network_of,
    thin,
)


def reread(cfg: Path, weights: Path) -> DarknetNetwork:
    network = build_network(read_cfg(cfg)).eval()
    load_darknet_weights(network, weights)
    return network


def image_of(network: DarknetNetwork, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, *network.size, generator=torch.Generator().manual_seed(2))


def outputs(network: DarknetNetwork) -> list[torch.Tensor]:
    with torch.no_grad():
        given = network(image_of(network))
    return list(given) if isinstance(given, tuple) else [given]


@needs_darknet
@pytest.mark.parametrize("name", ["resnet50", "yolov2", "yolov3-tiny"])
def test_pruned_pairs_answer_as_darknet(name: str, tmp_path: Path) -> None:
    network = lively(build_network(thin(read_cfg(PACKAGE / f"{name}.cfg"), divide=4)))
    report = apply_plan_to_module(network, random_plan(trace(network, image_of(network))))
    assert report.parameters_after < 0.8 * report.parameters_before
    assert_as_darknet(network, *write_pair(network, tmp_path / "pruned"))


def test_an_unpruned_pair_is_the_same_network(tmp_path: Path) -> None:
    network = network_of(RESIDUAL)
    network.header = Header(0, 2, 5, 64)
    cfg, weights = write_pair(network, tmp_path / "same")
    again = reread(cfg, weights)
    assert read_cfg(cfg).render() == network.cfg.render()
    assert again.header == network.header
    assert all(torch.equal(one, other) for one, other in zip(outputs(network), outputs(again), strict=True))
    assert (tmp_path / "same.weights").read_bytes() == write_pair(again, tmp_path / "again")[1].read_bytes()


@needs_darknet
@pytest.mark.parametrize("blocks", [["layers.1-4"], ["layers.5-7"], ["layers.1-4", "layers.5-7"]])
def test_removed_blocks_are_numbered_anew(blocks: list[str], tmp_path: Path) -> None:
    network = network_of(RESIDUAL)
    plan = plan_module(network, image_of(network), remove_blocks=blocks, keep_ratio=1)
    apply_plan_to_module(network, plan)
    cfg, weights = write_pair(network, tmp_path / "shorter")
    names = [section.name for section in read_cfg(cfg).layers]
    assert names.count("shortcut") == 2 - len(blocks)
    assert names.count("activation") == ("layers.5-7" in blocks)  # what follows its addition stays
    assert_as_darknet(reread(cfg, weights), cfg, weights)
    for one, other in zip(outputs(network), outputs(reread(cfg, weights)), strict=True):
        torch.testing.assert_close(one, other)


@needs_darknet
def test_the_constant_of_a_removed_block_becomes_a_depthwise_convolution(tmp_path: Path) -> None:
    network = network_of(RESIDUAL)
    images = image_of(network, 4)
    prune_module(network, images[:1], remove_blocks=["layers.1-4"], keep_ratio=0.5, compensation="mean", images=images)
    cfg, weights = write_pair(network, tmp_path / "shifted")
    added = read_cfg(cfg).layers[1]
    assert (added.integer("groups", 1), added.integer("size", 0)) == (8, 1)
    assert_as_darknet(reread(cfg, weights), cfg, weights)


def test_squeeze_excite_keeps_a_whole_reduction() -> None:
    text = f"{NET}[convolutional]\nfilters=32\nsize=3\nstride=2\nactivation=relu\n[se]\nreduction=2\n"
    text += "[convolutional]\nfilters=8\nsize=1\nactivation=relu\n"
    network = network_of(text)
    prune_module(network, image_of(network), keep_ratio=0.5, ignore=["*squeeze*"])
    pruned, _ = described(network)
    assert pruned.layers[1].integer("reduction", 0) == 1
    network = network_of(text)
    network.get_parameter("layers.1.squeeze.weight").data = torch.rand(11, 32)
    with pytest.raises(
        ModelError, match=r"net.cfg:12: \[se\] with 32 channels and 11 between its matrices; .*--ignore"
    ):
        described(network)


def test_nothing_is_written_when_the_pair_answers_otherwise(tmp_path: Path) -> None:
    network = network_of(RESIDUAL)
    convolution = network.get_submodule("layers.8.operator")
    assert isinstance(convolution, nn.Conv2d)
    convolution.stride = (2, 2)  # what no tensor shows
    with pytest.raises(VerificationError, match=r"odd\.cfg: the network read back differs by inf"):
        write_pair(network, tmp_path / "odd")
    assert not list(tmp_path.iterdir())


def test_an_activation_that_darknet_has_not(tmp_path: Path) -> None:
    network = network_of(RESIDUAL)
    apply_plan_to_module(network, plan_module(network, image_of(network), remove_blocks=["layers.5-7"], keep_ratio=1))
    bypass = network.get_submodule("layers.5-7")
    assert isinstance(bypass, Bypass)
    bypass.activation = "gelu"
    with pytest.raises(ModelError, match="layer 7: gelu behind a removed block; allowed: an activation of Darknet"):
        write_pair(network, tmp_path / "odd")
