"""Each kind of failure has its exit code."""

import pytest

from stack.errors import (
    Locked, MigrationFailed, OperatorError, Refused, RestoreFailed, Several, UpdateFailed,
    raise_all)
from stack.release.rollout import NotArrived

pytestmark = pytest.mark.unit

CODES = [(OperatorError, 1), (Refused, 1), (MigrationFailed, 3), (UpdateFailed, 4),
         (RestoreFailed, 5), (Locked, 7)]


@pytest.mark.parametrize(("kind", "code"), CODES)
def test_an_errors_class_decides_its_code(kind: type[OperatorError], code: int) -> None:
    assert kind("the disk is full").code == code


def test_an_error_names_its_cause_and_what_to_do() -> None:
    error = OperatorError("the disk is full", "make room")
    assert (error.message, error.cause) == ("the disk is full: make room", "the disk is full")


def test_a_cause_of_many_lines_becomes_one() -> None:
    error = OperatorError("  the disk\n\tis   full\n", "make room")
    assert (error.message, error.cause) == ("the disk is full: make room", "the disk is full")


def test_an_error_reads_as_its_line() -> None:
    assert str(UpdateFailed("the disk is full", "make room")) == "the disk is full: make room"


def test_an_error_may_have_no_remedy() -> None:
    assert OperatorError("the disk is full").message == "the disk is full"


def test_a_failed_update_has_dockers_output_or_the_failed_task() -> None:
    refused = NotArrived("app: refused", said=["first line", "last line"])
    assert (refused.message, refused.said, refused.task) \
        == ("app: refused", ["first line", "last line"], "")
    assert NotArrived("app: exited", task="t").task == "t"


def test_several_errors_are_a_line_each_with_the_gravest_code() -> None:
    errors = [Refused("a has no room", "make some"), Locked("b is locked"), Refused("c is gone")]
    with pytest.raises(Several) as raised:
        raise_all(errors)
    assert str(raised.value) == "a has no room: make some\nb is locked\nc is gone"
    assert (raised.value.code, raised.value.cause) == (7, "b is locked")


def test_a_single_error_is_raised_unchanged() -> None:
    error = Locked("b is locked")
    with pytest.raises(Locked) as raised:
        raise_all([error])
    assert raised.value is error


def test_without_an_error_work_continues() -> None:
    raise_all([])
