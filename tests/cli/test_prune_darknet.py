"""`eightfold prune darknet:FILE.cfg` leaves a cfg and weights that Darknet reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from eightfold.cli.app import app
from eightfold.zoo.sources.base import SourceWarning
from eightfold.zoo.sources.darknet.source import open_darknet
from eightfold.zoo.sources.darknet.weights import save_weights
from tests.zoo.sources.darknet.networks import RESIDUAL, assert_as_darknet, needs_darknet, network_of


@needs_darknet
@pytest.mark.parametrize("trained", [True, False])
def test_prune_leaves_a_pair(trained: bool, tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text(RESIDUAL)
    save_weights(network_of(RESIDUAL), tmp_path / "net.weights")
    source = f"darknet:{tmp_path / 'net.cfg'}" + (f"+{tmp_path / 'net.weights'}" if trained else "")
    command = ["prune", source, "--keep", "0.5", "-o", str(tmp_path / "out")]
    if trained:
        done = CliRunner().invoke(app, command)
    else:
        with pytest.warns(SourceWarning, match="net.cfg: no weights given, the network has random ones"):
            done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    pair = tmp_path / "out/net.cfg", tmp_path / "out/net.weights"
    pruned = open_darknet(f"{pair[0]}+{pair[1]}").network.eval()
    assert pruned.get_parameter("layers.1-4.layers.1.operator.weight").shape[:2] == (16, 8)
    assert_as_darknet(pruned, *pair)
