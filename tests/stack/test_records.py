"""The release before the current one is told from the records."""

import pytest

from stack import records
from stack.definition import Stack
from stack.records import Record

pytestmark = pytest.mark.unit


def record(version: str, at: float) -> Record:
    content = {"services": {"app": {"image": f"app:{version}"}}}
    return Record(version, "0123456", "ada@example.org", at, 12.5, content, {"app": "0"})


def history(*versions: str) -> list[Record]:
    """Return a record for each version, newest first."""
    return [record(version, 1000.0 - place) for place, version in enumerate(versions)]


@pytest.mark.parametrize(("versions", "expected"), [
    (["3", "2", "1"], "2"),
    (["2", "3", "2", "1"], "1"),  # Rolled back once.
    (["4", "2", "3", "2", "1"], "2"),  # Rolled back, then mended.
    (["3", "2", "3", "2", "1"], "2"),  # Rolled back, then forward again.
])
def test_the_release_before_is_older_than_what_was_rolled_back(
        versions: list[str], expected: str) -> None:
    before = records.before_current(history(*versions))
    assert before and before.version == expected


@pytest.mark.parametrize("versions", [[], ["1"], ["1", "2", "1"]])
def test_before_the_first_release_there_is_none(versions: list[str]) -> None:
    assert records.before_current(history(*versions)) is None


def test_a_record_holds_the_whole_stack() -> None:
    assert record("1", 0).stack == Stack({"services": {"app": {"image": "app:1"}}})
