"""A journal keeps its entries in Swarm configs, newest first, and leaves other configs alone."""


import pytest

from stack.engine.engine import Engine
from stack.state.journal import Entry, Journal
from tests.support.engine_api import FakeEngine

pytestmark = pytest.mark.unit


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine({"configs": {"other": {"ID": "other", "Spec": {
        "Name": "tally-note-1000", "Labels": {"tally.other": "1"}}}}})


@pytest.fixture
def journal(engine: Engine) -> Journal:
    return Journal(engine, "tally.note", "note")


def test_entries_are_read_newest_first(journal: Journal) -> None:
    journal.add(1001.5, "first", {"a": [1, None]})
    journal.add(1002.25, "second", "text")

    assert journal.entries() == [Entry("tally-note-1002250", "second", "text"),
                                 Entry("tally-note-1001500", "first", {"a": [1, None]})]


def test_the_oldest_entries_are_removed(journal: Journal) -> None:
    for second in range(1001, 1006):
        journal.add(second, "note", second)
    journal.trim(2)

    assert [entry.content for entry in journal.entries()] == [1005, 1004]


def test_an_entry_is_removed_by_its_time(journal: Journal) -> None:
    journal.add(1001, "note", "a")
    journal.add(1002, "note", "b")
    journal.remove_at(1001)

    assert [entry.content for entry in journal.entries()] == ["b"]


def test_all_entries_are_removed_and_nothing_else(fake: FakeEngine, journal: Journal) -> None:
    journal.add(1001, "note", "a")
    journal.clear()

    assert journal.entries() == []
    assert set(fake.kinds["configs"]) == {"other"}
