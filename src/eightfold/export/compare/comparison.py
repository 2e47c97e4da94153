"""Result of comparing two artifacts: errors of the outputs and of every layer in between, as values and text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from eightfold.export.compare.agreement import Agreement
from eightfold.export.compare.answers import CostlyTensor, needs_a_name
from eightfold.export.int8.decoded_errors import DecodedErrors
from eightfold.export.int8.output_errors import OutputError
from eightfold.export.verify.verify import Difference
from eightfold.text_table import text_table, wrapped
from eightfold.values import Frozen

# Characters of a layer's name: at most, and at least where the whole table has to fit into a line.
NAME_WIDTH, LEAST_NAME_WIDTH = 44, 16
OP_WIDTH = 20
ERRORS = ("max abs", "max rel", "cosine")
# Names of layers without a like, in a line.
NAMED = 4


class ComparedLayer(Frozen):
    """A tensor of the first network, in order of computation, and its counterpart in the second.

    Attributes:
        tensor: its name; a layer's, where the network is a torch module.
        op_type: what makes it.
        other, other_op: the same of what stands for it; "" where nothing does.
        difference: between the two; None where nothing stands for it.
        maker, other_maker: the layer of the engine that computes either, and its type, where one is an engine and its
            inspector told.
        parted: neither it nor anything computed from it is like anything in the second network.
    """

    tensor: str
    op_type: str
    other: str = ""
    other_op: str = ""
    difference: Difference | None = None
    maker: str = ""
    other_maker: str = ""
    parted: bool = False


class Comparison(Frozen):
    """Two artifacts on the same inputs.

    Attributes:
        first, second: what was compared, as it was named.
        outputs: differences of the outputs.
        answers: the same by output and by channel group, in dB.
        decoded: differences of the decoded answers, where a decoder is known.
        costliest: the tensor at which most of the error arises, where the answers differ by more than rounding does.
        layers: the tensors in between, in order of computation.
        first_beyond: the layer from which on the two differ by more than the tolerance; "" where there is none.
        limit: that tolerance, in words.
        no_layers: why there are no layers; "" where there are.
        notes: what a reader of the layers has to know.
        agreement: what both are worth on labelled images, where some were given.
        on_random_inputs: no images were given.
    """

    first: str
    second: str
    outputs: tuple[Difference, ...]
    answers: tuple[OutputError, ...] = ()
    decoded: DecodedErrors | None = None
    costliest: CostlyTensor | None = None
    layers: tuple[ComparedLayer, ...] = ()
    first_beyond: str = ""
    limit: str = ""
    no_layers: str = ""
    notes: tuple[str, ...] = ()
    agreement: Agreement | None = None
    on_random_inputs: bool = False

    @property
    def compared(self) -> tuple[ComparedLayer, ...]:
        """The layers that can be held against something."""
        return tuple(layer for layer in self.layers if layer.difference is not None or layer.parted)

    @property
    def exact(self) -> bool:
        """True if every output and every layer that was compared is the same to the last bit."""
        return all(each.max_abs_error == 0 for each in self.outputs) and not any(map(_differs, self.compared))

    def describe(self, worst: int = 0, width: int | None = None) -> str:
        """A table of every layer. With `worst`, only that many layers with the lowest cosine, in order of computation;
        one line if nothing differs. `width`: characters per line, approximately."""
        head = f"{self.first} against {self.second}"
        agreement = [self.agreement.describe()] if self.agreement else []
        if self.on_random_inputs:
            agreement.append("on random inputs, where networks may differ more or less than on images: give --images")
        if worst and self.exact:
            return "\n".join([f"{head}: {self._in_short()}", *agreement])
        rows = [layer for layer in self.compared if not worst or _differs(layer)]
        shown = worst_of(rows, worst) if worst else rows
        remarks = [line for each in self._remarks(len(shown), len(rows)) for line in wrapped(each, width)]
        answers = [line for each in self._answers() for line in wrapped(each, width)]
        return "\n".join([head, *self._table(shown, width), *remarks, *answers, *agreement])

    def _answers(self) -> Iterable[str]:
        """Of two that are not the same."""
        if not self.exact:
            yield from (f"output {each.describe()}" for each in self.answers)
            if self.decoded is not None:
                yield self.decoded.describe()
            if self.costliest is not None:
                yield self.costliest.describe()

    def _in_short(self) -> str:
        """Of two that are the same."""
        outputs, layers = len(self.outputs), len(self.compared)
        inside = f"and {layers} layers exactly alike" if layers else f"exactly alike; {self.no_layers or 'no layers'}"
        return f"{outputs} output{'s' * (outputs > 1)} {inside}"

    def _table(self, shown: Sequence[ComparedLayer], width: int | None) -> list[str]:
        """With names as long as fit."""
        table: list[str] = []
        for longest in range(NAME_WIDTH, LEAST_NAME_WIDTH - 1, -1):
            table = self._table_of_names(shown, longest)
            if width is None or max(map(len, table)) <= width:
                break
        return table

    def _table_of_names(self, shown: Sequence[ComparedLayer], longest: int) -> list[str]:
        words = _word_columns(shown, longest)
        lines = [[*words, *ERRORS]]
        lines += [[*(cell(layer) for cell in words.values()), *_errors(layer.difference)] for layer in shown]
        blank = [""] * (len(words) - 2)
        lines += [[shortened(each.tensor, longest), "output", *blank, *_errors(each)] for each in self.outputs]
        return text_table(lines, left=range(len(words)))

    def _remarks(self, shown: int, total: int) -> Iterable[str]:
        if self.no_layers:
            yield f"outputs only: {self.no_layers}"
            return
        yield from self.notes
        if shown < total:
            yield f"the {shown} of {total} layers with the lowest cosine, in order of computation"
        if same := len(self.compared) - total:
            yield f"further layers, exactly alike: {same}"
        lost = [layer.tensor for layer in self.layers if layer.difference is None and not layer.parted]
        if lost:
            names = ", ".join(map(shortened, lost[:NAMED])) + (
                f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
            )
            yield f"not found in the second, where they were folded into what follows: {names}"
        if self.first_beyond:
            yield f"the two part at {self.first_beyond}: it is beyond {self.limit}, and all that is computed from it"
        elif self.layers and needs_a_name(self.answers, self.decoded):
            yield f"no layer alone is beyond {self.limit}, but the answers differ by more than rounding does"
        elif self.layers:
            yield f"the two do not part: every layer is within {self.limit}, or leads to one that is"


def _differs(layer: ComparedLayer) -> bool:
    return layer.difference is None or layer.difference.max_abs_error != 0


def worst_of(rows: Sequence[ComparedLayer], count: int) -> list[ComparedLayer]:
    """Those with the lowest cosine, in order; what has no like at all comes before everything else."""
    chosen = sorted(range(len(rows)), key=lambda place: _cosine(rows[place]))[:count]
    return [rows[place] for place in sorted(chosen)]


def _cosine(layer: ComparedLayer) -> float:
    return layer.difference.cosine if layer.difference is not None else -2.0


def _word_columns(shown: Sequence[ComparedLayer], longest: int) -> dict[str, Callable[[ComparedLayer], str]]:
    """Head of a column -> its cells, without empty columns."""
    columns: dict[str, Callable[[ComparedLayer], str]] = {
        "layer": lambda layer: shortened(layer.tensor, longest),
        "made by": lambda layer: shortened(layer.op_type, OP_WIDTH),
    }
    if any(layer.other != layer.tensor for layer in shown):
        columns["stands for it"] = lambda layer: shortened(layer.other or "not found", longest)
    if any(layer.maker for layer in shown):
        columns["in the first engine"] = lambda layer: shortened(layer.maker, longest)
    if any(layer.other_maker for layer in shown):
        columns["in the second engine"] = lambda layer: shortened(layer.other_maker, longest)
    return columns


def _errors(found: Difference | None) -> list[str]:
    if found is None:
        return [""] * len(ERRORS)
    return [f"{found.max_abs_error:.3g}", f"{found.max_rel_error:.3g}", f"{found.cosine:.7f}"]


def shortened(name: str, width: int = NAME_WIDTH) -> str:
    """The end of a long name, which tells layers apart."""
    return name if len(name) <= width else "..." + name[3 - width :]
