"""Three ways to prune MODNet: the backbone with fixed taps, the backbone with its taps, the whole network."""

from __future__ import annotations

from typing import Literal

from eightfold.errors import UnknownNameError
from eightfold.json_types import JsonDict

Scope = Literal["backbone", "taps", "whole"]
# The convolutions that make the maps which the branches read.
TAPS = tuple(f"backbone.model.features.{layer}.weight" for layer in ("1.conv.3", "3.conv.6", "18.0"))
BRANCHES = ("lr_branch.se_block.*", "lr_branch.conv_*", "hr_branch.*", "f_branch.*")


def modnet_options(scope: str, keep_ratio: float) -> JsonDict:
    """Arguments of `plan_pruning` and `prune`.

    Args:
        scope: "backbone": the branches keep every channel, and so the maps that they read do (16, 24 and 1280 wide);
            "taps": channels of those maps go too, with what reads them; "whole": every channel may go.
        keep_ratio: share of the channels that stays, where channels go.
    """
    if scope == "backbone":
        return {"keep_ratio": keep_ratio, "ignore": (*BRANCHES, *TAPS)}
    if scope == "taps":
        return {"keep_ratio": 1.0, "keep": {"backbone.*": keep_ratio}}
    if scope == "whole":
        return {"keep_ratio": keep_ratio}
    raise UnknownNameError.of("scope of MODNet", scope, ("backbone", "taps", "whole"))
