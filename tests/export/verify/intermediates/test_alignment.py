from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eightfold.export.verify.intermediates.alignment import aligned_tensors
from eightfold.export.verify.intermediates.fingerprint import SAMPLES, Scan, distances, fingerprint
from eightfold.export.verify.intermediates.probe import Intermediate, Intermediates

Entry = tuple[str, NDArray[np.float64], tuple[int, ...]]


def _scan(*entries: Entry) -> Scan:
    """Tensors by (name, values, places of the sources)."""
    tensors = tuple(Intermediate(name, "op", sources) for name, _, sources in entries)
    prints = {place: fingerprint(values) for place, (_, values, _) in enumerate(entries)}
    return Scan(Intermediates(tensors, (len(entries) - 1,)), prints)


def _noise(seed: int, *shape: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=shape or (4, 6))


def _found(first: Scan, second: Scan) -> dict[str, str]:
    return {
        first.inside.tensors[pair.first].name: second.inside.tensors[pair.second].name
        for pair in aligned_tensors(first, second)
    }


def test_distances_are_those_of_the_whole_arrays_where_they_are_small() -> None:
    a, b = _noise(0), _noise(1)
    found, _ = distances([fingerprint(a)], [fingerprint(b)])
    larger = max(np.linalg.norm(a), np.linalg.norm(b))
    np.testing.assert_allclose(found[0, 0], np.linalg.norm(a - b) / larger)


def test_large_tensors_are_told_apart_by_samples() -> None:
    a = _noise(0, 3, 50, 60)
    entry = fingerprint(a)
    assert all(len(sample) == SAMPLES for sample in entry.samples)
    found, _ = distances([entry], [fingerprint(a + 0.1 * _noise(1, 3, 50, 60)), fingerprint(-a)])
    assert 0.07 < found[0, 0] < 0.13
    assert found[0, 1] > 1.2


def test_equal_values_find_each_other_whatever_their_names_and_shapes() -> None:
    first = _scan(("conv", _noise(0), ()), ("bn", _noise(1), (0,)), ("relu", _noise(2), (1,)))
    second = _scan(("a", _noise(1).reshape(6, 4), ()), ("b", _noise(2), (0,)))
    assert _found(first, second) == {"bn": "a", "relu": "b"}


def test_another_layout_is_recognized() -> None:
    values = _noise(0, 1, 3, 4, 5)
    (pair,) = aligned_tensors(_scan(("x", values, ())), _scan(("y", values.transpose(0, 2, 3, 1), ())))
    np.testing.assert_array_equal(values.transpose(pair.layout), values.transpose(0, 2, 3, 1))


def test_equal_tensors_are_paired_in_order() -> None:
    first = _scan(("x", _noise(0), ()), ("drop", _noise(0), (0,)), ("y", _noise(1), (1,)))
    second = _scan(("p", _noise(0), ()), ("q", _noise(0), (0,)), ("r", _noise(1), (1,)))
    assert _found(first, second) == {"x": "p", "drop": "q", "y": "r"}


def test_branches_may_be_computed_in_another_order() -> None:
    first = _scan(
        ("x", _noise(0), ()),
        ("left", _noise(1), (0,)),
        ("left2", _noise(2), (1,)),
        ("right", _noise(3), (0,)),
        ("sum", _noise(4), (2, 3)),
    )
    second = _scan(
        ("x'", _noise(0), ()),
        ("right'", _noise(3), (0,)),
        ("left'", _noise(1), (0,)),
        ("left2'", _noise(2), (2,)),
        ("sum'", _noise(4), (3, 1)),
    )
    assert _found(first, second) == {name: f"{name}'" for name in ("x", "left", "left2", "right", "sum")}


def test_what_was_folded_has_no_like_although_its_successor_is_near() -> None:
    """Half way between: the convolution's result is like the batch norm's; in a network that agrees that is chance."""
    conv = _noise(0)
    norm = conv + 0.2 * _noise(1)
    first = _scan(("conv", conv, ()), ("other", _noise(5), (0,)), ("norm", norm, (0,)))
    second = _scan(("folded", norm, ()), ("stray", conv + 0.3 * _noise(2), (0,)))
    assert _found(first, second) == {"norm": "folded"}


def test_rounded_tensors_are_found_by_what_they_are_like() -> None:
    values = [_noise(seed, 8, 8) for seed in range(6)]
    first = _scan(*((f"t{at}", each, (at - 1,) if at else ()) for at, each in enumerate(values)))
    rounded = [each + 0.1 * _noise(9, 8, 8) for each in values]
    second = _scan(*((f"r{at}", each, (at - 1,) if at else ()) for at, each in enumerate(rounded)))
    assert _found(first, second) == {f"t{at}": f"r{at}" for at in range(6)}


def test_names_pair_what_is_no_longer_alike_and_outputs_are_a_pair() -> None:
    first = _scan(("x", _noise(0), ()), ("y", _noise(1), (0,)), ("z", _noise(2), (1,)))
    second = _scan(("x", _noise(0), ()), ("other", _noise(6), (0,)), ("y", _noise(5), (0,)), ("w", _noise(7), (1,)))
    assert _found(first, second) == {"x": "x", "y": "y", "z": "w"}


def test_a_name_that_is_out_of_order_is_no_link() -> None:
    first = _scan(("1", _noise(0), ()), ("2", _noise(1), (0,)), ("3", _noise(2), (1,)))
    second = _scan(("2", _noise(0), ()), ("1", _noise(5), (0,)), ("3", _noise(1), (0,)), ("4", _noise(2), (1,)))
    assert _found(first, second) == {"1": "2", "2": "3", "3": "4"}


def test_what_is_not_finite_is_compared_as_well() -> None:
    masked = np.where(_noise(0) > 0, -np.inf, _noise(1))
    assert _found(_scan(("mask", masked, ())), _scan(("m", masked.copy(), ()))) == {"mask": "m"}
