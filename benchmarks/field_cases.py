"""Runs the kinds of field cases over generated variants, and counts how many of each are right, refused in one line, or
wrong. The last column has to be 0.

    python benchmarks/field_cases.py [--kind NAME ...] [--limit N] [--seed N] [--list] [--rows FILE] [--any-code]

Kinds lie in `benchmarks/field_kinds/`. `--limit` takes so many cases of each kind, drawn by the seed; without
it all run, and a run of all kinds writes `benchmarks/results/field_cases.md`. Counts of finished kinds are kept
in build/, and a run goes on behind those that the same code gave (`--any-code`: any code). `--kind` counts anew.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "field_cases.md"
ROWS = ROOT / "build" / "field_cases.jsonl"
# The graphs of the tests are used here as well.
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "export" / "int8")]

from field_kinds import Case, Kind, WrongResult, load_kinds  # noqa: E402 - they lie beside this file
from kept_rows import SOURCE, KeptRows  # noqa: E402 - as above

from eightfold.errors import EightfoldError  # noqa: E402 - as above

LONGEST_LINE = 1000  # characters of a refusal


@dataclass
class Count:
    """Outcomes of one kind."""

    right: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, case: Case, outcome: str, words: str) -> None:
        if outcome == "wrong" or case.expected not in (outcome, "either"):
            self.wrong.append(f"{case.name}: {outcome}, {words}")
        elif outcome == "refused":
            self.refused += 1
        else:
            self.right += 1


def outcome_of(case: Case) -> tuple[str, str]:
    """("right", "refused" or "wrong", why)."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            case.run(Path(folder))
        except EightfoldError as error:
            return _refusal(case, str(error), folder)
        except WrongResult as error:
            return "wrong", str(error)
        except Exception:
            return "wrong", "a traceback: " + traceback.format_exc().strip().splitlines()[-1][:300]
    return "right", "a result"


def _refusal(case: Case, line: str, folder: str) -> tuple[str, str]:
    if "\n" in line or len(line) > LONGEST_LINE:
        return "wrong", f"a refusal that is not one line: {line[:200]!r}"
    if "defect" in line or ".tmp" in line.replace(folder, ""):
        return "wrong", f"a refusal that names a defect or a scratch path: {line[:200]}"
    if case.words and case.words not in line:
        return "wrong", f"a refusal without {case.words!r}: {line[:300]}"
    return "refused", line


def count(kind: Kind, *, limit: int | None, seed: int) -> Count:
    found = Count()
    cases = list(kind.cases(Random(seed)))
    if limit is not None and limit < len(cases):
        cases = Random(seed).sample(cases, limit)
    for case in cases:
        found.add(case, *outcome_of(case))
    return found


HEAD = """# Field cases

Kinds of input that failed for users, over generated variants; made by `python benchmarks/field_cases.py` on {machine}.
*Refused* is in one line that says what was seen, what is allowed and what to do; what is *wrong* has to be 0.

| entry | kind | right | refused | wrong |
|---|---|---|---|---|
"""


def markdown(kinds: Iterable[Kind], counts: Mapping[str, Count]) -> str:
    """The page."""
    rows = [(each.entry, each.name, counts[each.name]) for each in kinds]
    lines = [f"| {entry} | {name} | {n.right} | {n.refused} | {len(n.wrong)} |" for entry, name, n in rows]
    sums = (sum(n.right for *_, n in rows), sum(n.refused for *_, n in rows), sum(len(n.wrong) for *_, n in rows))
    return (
        HEAD.format(machine=platform.machine()) + "\n".join([*lines, "| | all | {} | {} | {} |".format(*sums)]) + "\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", action="append", help="only this kind; repeat for more")
    parser.add_argument("--limit", type=int, help="at most so many cases of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="only name the kinds")
    parser.add_argument("--rows", type=Path, default=ROWS, help="counts of finished kinds, one JSON object a line")
    parser.add_argument("--any-code", action="store_true", help="take kept counts that other code gave, too")
    chosen = parser.parse_args()
    kinds = load_kinds()
    unknown = set(chosen.kind or ()) - kinds.keys()
    if unknown:
        parser.error(f"no kind {min(unknown)!r}; allowed: {', '.join(kinds)}")
    wanted = [each for each in kinds.values() if not chosen.kind or each.name in chosen.kind]
    if chosen.list:
        print("\n".join(f"{each.entry:>4}  {each.name}" for each in wanted))
        return 0
    print(f"{'entry':>5}  {'kind':<40} {'right':>6} {'refused':>8} {'wrong':>6}")
    kept = KeptRows(
        None if chosen.limit is not None else chosen.rows,
        any_code=chosen.any_code,
        code_in=(SOURCE, ROOT / "benchmarks" / "field_kinds"),
    )
    counts = {}
    for each in wanted:
        if each.name in kept.rows and not chosen.kind:
            found = Count(**kept.rows[each.name])
        else:
            found = count(each, limit=chosen.limit, seed=chosen.seed)
            kept.add(each.name, asdict(found))
        counts[each.name] = found
        print(f"{each.entry:>5}  {each.name:<40} {found.right:>6} {found.refused:>8} {len(found.wrong):>6}", flush=True)
    if chosen.limit is None and not chosen.kind:
        RESULT.write_text(markdown(wanted, counts))
    for line in chain.from_iterable(each.wrong for each in counts.values()):
        print(f"wrong: {line}")
    return 1 if any(each.wrong for each in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
