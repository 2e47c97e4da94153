from __future__ import annotations

from pathlib import Path

import pytest
import torch

from eightfold.errors import ModelError
from eightfold.zoo.sources.darknet.cfg import parse_cfg, read_cfg
from eightfold.zoo.sources.darknet.network import build_network
from eightfold.zoo.sources.darknet.source import build_on_meta
from tests.zoo.sources.darknet.networks import NET, PACKAGE, RECURRENT, RESIDUAL, needs_darknet

CONV = "[convolutional]\nfilters=8\nsize=3\npad=1\nactivation=leaky\n"


def test_blanks_and_comments_do_not_count_and_the_first_of_two_values_does() -> None:
    cfg = parse_cfg("; a comment\n[ net ]\nwidth = 3 2 # not 64\nheight=32\nchannels=3\nwidth=64\n[conv]\n", "a.cfg")
    assert cfg.net.integer("width", 0) == 32
    assert [section.name for section in cfg.layers] == ["convolutional"]
    assert cfg.layers[0].index == 0


def test_what_is_rendered_reads_the_same() -> None:
    cfg = parse_cfg(RESIDUAL, "a.cfg")
    again = parse_cfg(cfg.render(), "a.cfg")
    assert again.render() == cfg.render()
    assert [[(o.key, o.value) for o in s.options] for s in again.layers] == [
        [(o.key, o.value) for o in s.options] for s in cfg.layers
    ]


@needs_darknet
@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.cfg")), ids=lambda path: path.stem)
def test_every_cfg_of_the_package_builds_but_the_recurrent(path: Path) -> None:
    if path.stem in RECURRENT:
        with pytest.raises(ModelError, match=rf"{path.name}:\d+: unknown section \[(gru|rnn)\]; allowed: convolut"):
            read_cfg(path)
        return
    network = build_on_meta(read_cfg(path))
    assert sum(parameter.numel() for parameter in network.parameters()) > 0


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "a.cfg is empty; allowed: .net. as the first section"),
        ("[convolutional]\n", 1, r"\[convolutional\] comes first; allowed: \[net\]"),
        (NET, None, "a.cfg has no layers"),
        (f"{NET}[convolutional\n", 7, "close the bracket"),
        (f"{NET}{CONV}filters\n", 12, r"'filters'; allowed: \[section\], key=value"),
        ("filters=3\n", 1, "'filters=3' before any section"),
        (f"{NET}[convolutionel]\n", 7, r"unknown section \[convolutionel\]; .*did you mean \[convolutional\]\?"),
        (f"{NET}{CONV}fitlers=3\n", 12, r"unknown key 'fitlers' in \[convolutional\]; .*did you mean 'filters'\?"),
        (f"{NET}{CONV}xnor=1\n", 12, r"xnor=1 in \[convolutional\]; allowed: xnor=0"),
        (f"{NET}[convolutional]\nfilters=many\n", 8, "filters=many; allowed: numbers with commas"),
        (f"{NET}[convolutional]\nfilters=0\n", 8, "filters=0; allowed: an integer of 1 or more"),
        (f"{NET}[convolutional]\nfilters=2.5\n", 8, "filters=2.5; allowed: an integer of 1 or more"),
        (f"{NET}[convolutional]\nfilters=8\ngroups=3\n", 9, "3 channels to 8 filters in 3 groups"),
        (f"{NET}[convolutional]\nactivation=lekay\n", 8, "unknown activation 'lekay'; allowed: .*leaky"),
        (f"{NET}[convolutional]\nsize=99\nactivation=relu\n", 7, "leaves -66x-66 of 32x32; allowed: at least 1x1"),
        ("[net]\nwidth=32\n" + CONV, 1, "an input of 32x0, 0 channels; allowed: width=, height= and channels= above"),
        (f"{NET}{CONV}[route]\nlayers=-2\n", 13, "layers=-2 points to layer -1, which is missing; allowed: 0 to 0"),
        (f"{NET}{CONV}[route]\nlayers=7\n", 13, "layers=7 points to layer 7, which is missing"),
        (f"{NET}{CONV}[route]\n", 12, r"\[route\] without layers"),
        (f"{NET}{CONV}[maxpool]\nstride=2\n[route]\nlayers=-1,0\n", 15, r"different sizes \(1: 16x16, 0: 32x32\)"),
        (f"{NET}{CONV}[route]\nlayers=0\ngroups=3\n", 14, "group 0 of 3 of 8 channels"),
        (f"{NET}{CONV}[shortcut]\nfrom=5\n", 13, "from=5 points to layer 5, which is missing"),
        (f"{NET}{CONV}[shortcut]\nfrom=0\nweights_type=per_feature\n", 14, "weighted shortcuts"),
        (f"{NET}{CONV}[scale_channels]\nfrom=0\n", 13, "factors of 8x32x32 for layer 0 of 8x32x32; allowed: 8x1x1"),
        (f"{NET}{CONV}[maxpool]\nsize=2\nstride=2\npadding=3\n", 12, "size=2, stride=2, padding=3 on 32x32"),
        (
            f"{NET}{CONV}[yolo]\nclasses=2\nnum=1\n",
            12,
            r"8 channels before \[yolo\]; allowed: 7 = 1 anchors x \(5 \+ 2",
        ),
        (f"{NET}{CONV}[yolo]\nclasses=3\nmask=1\nnum=1\n", 14, "mask=1 and 1 anchors; allowed: numbers from 0 to 0"),
        (f"{NET}{CONV}[yolo]\nclasses=3\nnum=1\nanchors=1,2,3\n", 15, "3 numbers as anchors; allowed: pairs"),
        (f"{NET}{CONV}[yolo]\nclasses=3\nnum=2\nanchors=1,2\n", 15, "1 anchors and num=2; allowed: 2 pairs"),
        (f"{NET}{CONV}[yolo]\nclasses=3\n[route]\nlayers=-1\n", 15, r"points to the output \[yolo\]"),
        (f"{NET}{CONV}[detection]\nside=2\n", 12, r"8192 values before \[detection\]; allowed: 12 = 2x2 cells"),
        (f"{NET}{CONV}[softmax]\ngroups=3\n", 13, "8192 values in 3 groups"),
        (f"{NET}{CONV}[dropout]\nprobability=1\n", 13, "probability=1; allowed: 0 or more, below 1"),
        (f"{NET}{CONV}[crop]\ncrop_height=40\n", 13, "crop of 1x40 from 32x32"),
        (f"{NET}{CONV}[reorg]\nstride=3\n", 13, "stride=3 on 8x32x32"),
        (f"{NET}{CONV}[se]\nfilters=9\n", 13, r"\[se\] with filters=9, reduction=4"),
    ],
)
def test_a_faulty_cfg_ends_in_one_line_with_its_number(text: str, line: int | None, words: str) -> None:
    at = f"a.cfg:{line}: .*" if line else ""
    with torch.device("meta"), pytest.raises(ModelError, match=f"^{at}{words}") as error:
        build_network(parse_cfg(text, "a.cfg"))
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read .*none\.cfg: No such file"):
        read_cfg(tmp_path / "none.cfg")
    (tmp_path / "weights.cfg").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match=r"cannot read .*weights.cfg: it is no text in UTF-8"):
        read_cfg(tmp_path / "weights.cfg")
