"""What a comparison of two artifacts found: errors of the outputs and of every layer in between, as values and text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from eightfold.export.agreement import Agreement
from eightfold.export.verify import Difference
from eightfold.runtime.text_table import text_table
from eightfold.values import Frozen

NAME_WIDTH = 44
OP_WIDTH = 20
# Names of layers without a like, in a line.
NAMED = 4


class Layer(Frozen):
    """A tensor of the first network, in order of computation, and what stands for it in the second.

    Attributes:
        tensor: its name; a layer's, where the network is a torch module.
        op_type: what makes it.
        other, other_op: the same of what stands for it; "" where nothing does.
        difference: between the two; None where nothing stands for it.
        parted: neither it nor anything computed from it is like anything in the second network.
    """

    tensor: str
    op_type: str
    other: str = ""
    other_op: str = ""
    difference: Difference | None = None
    parted: bool = False


class Comparison(Frozen):
    """Two artifacts on the same inputs.

    Attributes:
        first, second: what was compared, as it was named.
        outputs: differences of the outputs.
        layers: the tensors in between, in order of computation.
        first_beyond: the layer from which on the two differ by more than the tolerance; "" where there is none.
        limit: that tolerance, in words.
        no_layers: why there are no layers; "" where there are.
        agreement: what both are worth on labelled images, where some were given.
    """

    first: str
    second: str
    outputs: tuple[Difference, ...]
    layers: tuple[Layer, ...] = ()
    first_beyond: str = ""
    limit: str = ""
    no_layers: str = ""
    agreement: Agreement | None = None

    def describe(self, worst: int = 0) -> str:
        """A table; with `worst`, only that many layers with the lowest cosine, in order of computation."""
        rows = [layer for layer in self.layers if layer.difference is not None or layer.parted]
        shown = worst_of(rows, worst) if worst else rows
        with_likes = any(layer.other != layer.tensor for layer in shown)
        head = ["layer", "made by", *(["stands for it"] if with_likes else []), "max abs", "max rel", "cosine"]
        lines = [head, *(_layer_row(layer, with_likes) for layer in shown)]
        lines += [_row(each.tensor, "output", "", each, with_likes) for each in self.outputs]
        table = text_table(lines, left=range(3 if with_likes else 2))
        remarks = [*self._remarks(len(shown), len(rows)), *([self.agreement.describe()] if self.agreement else [])]
        return "\n".join([f"{self.first} against {self.second}", *table, *remarks])

    def _remarks(self, shown: int, total: int) -> Iterable[str]:
        if self.no_layers:
            yield f"outputs only: {self.no_layers}"
            return
        if shown < total:
            yield f"the {shown} layers of {total} with the lowest cosine, in order of computation"
        lost = [layer.tensor for layer in self.layers if layer.difference is None and not layer.parted]
        if lost:
            names = ", ".join(map(shortened, lost[:NAMED])) + (
                f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
            )
            yield f"not found in the second, where they were folded into what follows: {names}"
        if self.first_beyond:
            yield f"the two part at {self.first_beyond}: it is beyond {self.limit}, and all that is computed from it"
        elif self.layers:
            yield f"the two do not part: every layer is within {self.limit}, or leads to one that is"


def worst_of(rows: Sequence[Layer], count: int) -> list[Layer]:
    """Those with the lowest cosine, in order; what has no like at all comes before everything else."""
    chosen = sorted(range(len(rows)), key=lambda place: _cosine(rows[place]))[:count]
    return [rows[place] for place in sorted(chosen)]


def _cosine(layer: Layer) -> float:
    return layer.difference.cosine if layer.difference is not None else -2.0


def _layer_row(layer: Layer, with_likes: bool) -> list[str]:
    return _row(layer.tensor, layer.op_type, layer.other or "not found", layer.difference, with_likes)


def _row(name: str, op: str, other: str, found: Difference | None, with_likes: bool) -> list[str]:
    errors = ["", "", ""]
    if found is not None:
        errors = [f"{found.max_abs_error:.3g}", f"{found.max_rel_error:.3g}", f"{found.cosine:.7f}"]
    return [shortened(name), shortened(op, OP_WIDTH), *([shortened(other)] if with_likes else []), *errors]


def shortened(name: str, width: int = NAME_WIDTH) -> str:
    """The end of a long name, which tells layers apart."""
    return name if len(name) <= width else "..." + name[3 - width :]
