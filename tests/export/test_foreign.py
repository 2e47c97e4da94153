"""Exporting straight into a bundle: what is refused before any work is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from eightfold.calib.preprocess import Preprocess
from eightfold.errors import UsageError
from eightfold.export.foreign import RAW_OUTPUTS, export_bundle
from eightfold.runtime.postprocess import decoder_of


@pytest.mark.parametrize("batches", [(), (0,), (1, -3)])
def test_batches_that_make_no_sense(tmp_path: Path, batches: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"batches .* allowed: whole numbers of at least 1"):
        export_bundle("model.onnx", tmp_path / "b", preprocess=Preprocess(height=8, width=8), batches=batches)
    assert not (tmp_path / "b").exists()


def test_raw_outputs_have_a_decoder() -> None:
    assert decoder_of(RAW_OUTPUTS)
