from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from eightfold.errors import ModelError
from eightfold.zoo.sources.darknet.cfg import parse_cfg
from eightfold.zoo.sources.darknet.header import Header
from eightfold.zoo.sources.darknet.network import DarknetNetwork, build_network
from eightfold.zoo.sources.darknet.weights import load_darknet_weights, read_weights, save_weights
from tests.zoo.sources.darknet.networks import NET, RESIDUAL, needs_darknet, network_of

CONNECTED = (
    f"{NET}[convolutional]\nfilters=2\nsize=3\nstride=8\nactivation=relu\n[connected]\noutput=5\nactivation=linear\n"
)


def same(one: DarknetNetwork, other: DarknetNetwork) -> bool:
    values = other.state_dict()
    return all(torch.equal(tensor, values[name]) for name, tensor in one.state_dict().items() if "tracked" not in name)


def fresh(text: str) -> DarknetNetwork:
    return build_network(parse_cfg(text, "net.cfg"))


@pytest.mark.parametrize(
    "header",
    [Header(0, 2, 0, 2**40), Header(0, 2, 5, 7), Header(1, 0, 0, 2**40), Header(0, 1, 0, 12345), Header(0, 0, 0, 3)],
)
def test_written_and_read_again_bit_by_bit(header: Header, tmp_path: Path) -> None:
    network, again = network_of(RESIDUAL), fresh(RESIDUAL)
    network.header = header
    save_weights(network, tmp_path / "a.weights")
    told = load_darknet_weights(again, tmp_path / "a.weights")
    assert again.header == header
    assert (told.layers, told.of) == (7, 7)
    assert same(network, again)
    save_weights(again, tmp_path / "b.weights")
    assert (tmp_path / "a.weights").read_bytes() == (tmp_path / "b.weights").read_bytes()


def test_the_order_is_beta_gamma_mean_variance_weight(tmp_path: Path) -> None:
    text = f"{NET}[convolutional]\nbatch_normalize=1\nfilters=2\nsize=1\nactivation=linear\n"
    values = np.arange(1, 15, dtype="<f4")  # 4 x 2 of the norm, 2 x 3 of the weight
    (tmp_path / "a.weights").write_bytes(struct.pack("<3iq", 0, 2, 0, 0) + values.tobytes())
    network = fresh(text)
    load_darknet_weights(network, tmp_path / "a.weights")
    state = {name.removeprefix("layers.0."): tensor.flatten().tolist() for name, tensor in network.state_dict().items()}
    assert state["norm.bias"] == [1, 2]
    assert state["norm.weight"] == [3, 4]
    assert state["norm.running_mean"] == [5, 6]
    assert state["norm.running_var"] == [7, 8]
    assert state["operator.weight"] == [9, 10, 11, 12, 13, 14]


def test_versions_above_1000_hold_connected_layers_transposed(tmp_path: Path) -> None:
    network, again = network_of(CONNECTED), fresh(CONNECTED)
    network.header = Header(1001, 0, 0, 9)
    save_weights(network, tmp_path / "a.weights")
    load_darknet_weights(again, tmp_path / "a.weights")
    assert same(network, again)
    _, values = read_weights(tmp_path / "a.weights")
    matrix = network.get_parameter("layers.1.operator.weight").detach().numpy()
    np.testing.assert_array_equal(values[-matrix.size :].reshape(matrix.shape[::-1]), matrix.T)
    assert (tmp_path / "a.weights").stat().st_size == 16 + 4 * len(values)


@needs_darknet
def test_darknet_s_own_files_read_and_are_written_alike(tmp_path: Path) -> None:
    cfg, seed = tmp_path / "net.cfg", tmp_path / "seed.weights"
    cfg.write_text(RESIDUAL)
    save_weights(network_of(RESIDUAL), seed)
    _darknet("partial", cfg, seed, tmp_path / "net.weights", "100")
    _darknet("partial", cfg, seed, tmp_path / "net.conv.5", "5")
    network, part = fresh(RESIDUAL), fresh(RESIDUAL)
    load_darknet_weights(network, tmp_path / "net.weights")
    assert same(network, network_of(RESIDUAL))
    save_weights(network, tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == (tmp_path / "net.weights").read_bytes()
    told = load_darknet_weights(part, tmp_path / "net.conv.5")
    assert (told.layers, told.of) == (4, 7)
    assert told.origin == f"layers 0 to 4 from {tmp_path / 'net.conv.5'}, the rest random"
    for name, tensor in part.state_dict().items():
        if name.startswith(("layers.0.", "layers.1-4.")) and "tracked" not in name:
            assert torch.equal(tensor, network.state_dict()[name])


def _darknet(*command: str | Path) -> None:
    subprocess.run(["darknet", *map(str, command)], check=True, capture_output=True, timeout=60)


def test_se_without_values_in_the_file(tmp_path: Path) -> None:
    convolution = f"{NET}[convolutional]\nfilters=8\nsize=3\nactivation=relu\n"
    plain, with_se = network_of(convolution), fresh(f"{convolution}[se]\nreduction=2\n")
    save_weights(plain, tmp_path / "a.weights")
    before = with_se.get_parameter("layers.1.squeeze.weight").clone()
    told = load_darknet_weights(with_se, tmp_path / "a.weights").origin
    assert told.endswith("it has no values for [se], which are random")
    assert torch.equal(with_se.get_parameter("layers.1.squeeze.weight"), before)
    assert torch.equal(
        with_se.get_parameter("layers.0.operator.weight"), plain.get_parameter("layers.0.operator.weight")
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "has 0 bytes; allowed: a header of 16 or 20 bytes"),
        (struct.pack("<3iq", 0, 2, 0, 0) + b"\0" * 9, "has 29 bytes: no whole number of float32 values"),
        (
            struct.pack("<3iq", 0, 2, 0, 0) + b"\0" * 8,
            "holds 2 values; allowed: 6,485, as net.cfg describes; name the cfg",
        ),
        (struct.pack("<3iq", 0, 2, 0, 0) + b"\0" * 40_000, "holds 10,000 values; allowed: 6,485"),
        (
            struct.pack("<3iq", 0, 2, 0, 0) + b"\0" * 4 * 496,
            r"holds 496 values; .*end exactly behind layer 0: .*conv\.1",
        ),
    ],
)
def test_a_wrong_file_ends_in_one_line_and_changes_nothing(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.weights").write_bytes(data)
    network = fresh(RESIDUAL)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ModelError, match=f"a.weights {words}"):
        load_darknet_weights(network, tmp_path / "a.weights")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_cutoff_file_of_another_length(tmp_path: Path) -> None:
    save_weights(network_of(RESIDUAL), tmp_path / "a.conv.5")
    with pytest.raises(ModelError, match=r"a\.conv\.5 holds 6,485 values; allowed: 2,128, as net\.cfg"):
        load_darknet_weights(fresh(RESIDUAL), tmp_path / "a.conv.5")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read .*a\.weights: No such file"):
        read_weights(tmp_path / "a.weights")
