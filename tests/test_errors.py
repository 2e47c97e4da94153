"""The error family: one line each, drawn as the tree at the head of the module."""

from __future__ import annotations

import re

import pytest

from eightfold import errors
from eightfold.errors import EightfoldError, UnknownNameError, UsageError
from eightfold.scratch import scratch_folder


def test_message_joins_seen_allowed_and_remedy() -> None:
    error = EightfoldError("batch 3 is not here.", allowed="1, 2", remedy="choose one")
    assert str(error) == "batch 3 is not here; allowed: 1, 2; choose one"


def test_message_is_one_line() -> None:
    assert str(EightfoldError("a\n  b", remedy="c\nd")) == "a b; c d"


def test_unknown_name_suggests_the_closest() -> None:
    error = UnknownNameError.of("model", "resnet19", ["resnet18", "vgg11"])
    assert str(error) == "unknown model 'resnet19'; allowed: resnet18, vgg11; did you mean 'resnet18'?"


def test_unknown_name_shortens_long_lists() -> None:
    assert "(20 in all)" in str(UnknownNameError.of("model", "x", [f"name{i}" for i in range(20)]))


def test_usage_errors_exit_with_2_and_others_with_1() -> None:
    for cls in _family(EightfoldError):
        assert cls.exit_code == (2 if issubclass(cls, UsageError) else 1)


def test_docstring_draws_exactly_the_family() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    assert sorted(drawn) == sorted(cls.__name__ for cls in _family(EightfoldError) if cls is not EightfoldError)


@pytest.mark.parametrize("name", ["PlanMismatchError", "IntegrityError", "TraceError"])
def test_indented_errors_have_a_parent_of_their_own(name: str) -> None:
    assert getattr(errors, name).__base__ is not EightfoldError


def _family(cls: type[EightfoldError]) -> list[type[EightfoldError]]:
    found = [cls]
    for sub in cls.__subclasses__():
        if sub.__module__ == "eightfold.errors":
            found += _family(sub)
    return found


def test_no_message_names_a_scratch_path() -> None:
    with scratch_folder() as folder:
        error = EightfoldError(
            f"cannot read {folder}/model.onnx ({folder}/w.data is absent)", remedy=f"see '{folder}/a'"
        )
    assert str(error) == "cannot read model.onnx (w.data is absent); see 'a'"
