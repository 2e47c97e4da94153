"""`eightfold plan`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Action(str, Enum):
    """Actions of `eightfold plan`."""

    show = "show"
    diff = "diff"
    merge = "merge"


def plan(
    action: Annotated[Action, typer.Argument(help="show PLAN, diff PLAN PLAN, or merge PLAN PLAN -o OUTPUT.")],
    plans: Annotated[list[Path], typer.Argument(help="plan.json files, or directories that `eightfold prune` wrote.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Output file of `merge`.")] = None,
) -> None:
    """Show a pruning plan, compare two, or merge two.

    Example: eightfold plan diff pruned-l1 pruned-l2
    """
    from eightfold.compress.plan.plan import PrunePlan
    from eightfold.compress.plan.plan_changes import diff_plans, merge_plans
    from eightfold.errors import UsageError
    from eightfold.files import require_output

    wanted = 1 if action is Action.show else 2
    if len(plans) != wanted or (action is Action.merge and output is None):
        raise UsageError(
            f"plan {action.value} got {len(plans)} plans and output {output}",
            allowed="show PLAN, diff PLAN PLAN, or merge PLAN PLAN --output FILE",
        )
    files = [path / "plan.json" if path.is_dir() else path for path in plans]
    require_output(output, reads=files)
    read = [PrunePlan.load(path) for path in files]
    if action is Action.show:
        print(read[0].describe())
    elif action is Action.diff:
        print(diff_plans(*read).describe())
    elif output is not None:
        print(f"wrote {merge_plans(*read).save(output)}")
