"""Clocks that differ are found, and the wrong one is named."""

from pathlib import Path

import pytest

from stack.machines import clock
from stack.machines.local import LocalMachine
from tests.stack.conftest import AddCommand

pytestmark = pytest.mark.unit

DATE = 'exec /usr/bin/date "$@"'


def slow_until(attempt: int, marks: Path) -> list[str]:
    """Return a script whose answers are slow before this attempt."""
    return [f'echo >> {marks}', f'[ "$(wc -l < {marks})" -ge {attempt} ] || sleep 1.2', DATE]


def test_a_clock_has_no_offset_from_itself(machine: LocalMachine) -> None:
    assert clock.offset(machine) == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("seconds", [42, -42])
def test_an_offset_is_positive_for_a_clock_that_is_ahead(
        machine: LocalMachine, add_command: AddCommand, seconds: int) -> None:
    add_command("date", f'exec /usr/bin/date --date="{seconds} seconds" "$@"')

    assert clock.offset(machine) == pytest.approx(seconds, abs=0.5)


def test_half_of_the_round_trip_is_no_offset(
        machine: LocalMachine, add_command: AddCommand) -> None:
    add_command("date", "sleep 0.4", '/usr/bin/date "$@"', "sleep 0.4")

    assert clock.offset(machine) == pytest.approx(0, abs=0.2)


def test_the_quickest_of_three_answers_counts(
        machine: LocalMachine, add_command: AddCommand, tmp_path: Path) -> None:
    add_command("date", *slow_until(3, tmp_path / "marks"))

    assert clock.offset(machine) == pytest.approx(0, abs=0.4)
    assert (tmp_path / "marks").read_text() == "\n" * 3


def test_a_quick_answer_is_enough(
        machine: LocalMachine, add_command: AddCommand, tmp_path: Path) -> None:
    add_command("date", *slow_until(1, tmp_path / "marks"))

    clock.offset(machine)

    assert (tmp_path / "marks").read_text() == "\n"


@pytest.mark.parametrize("offsets", [
    {}, {"a": 0.1}, {"a": 5.0}, {"a": -4.9, "b": 4.9}, {"a": 0.0, "b": 0.0, "c": 5.0}])
def test_clocks_within_five_seconds_of_this_one_agree(offsets: dict[str, float]) -> None:
    assert clock.complaints(offsets) == []


def test_a_single_machine_may_be_as_right_as_this_computer() -> None:
    assert clock.complaints({"203.0.113.12": 42.2}) == [
        "203.0.113.12: its clock is 42 s ahead of this computer's: see timedatectl on both"]


def test_this_computer_decides_between_two_machines() -> None:
    assert clock.complaints({"203.0.113.11": 0.1, "203.0.113.12": -42.0}) == [
        "203.0.113.12: its clock is 42 s behind: see timedatectl on it"]


def test_machines_that_agree_prove_this_computer_wrong() -> None:
    assert clock.complaints({"203.0.113.11": 42.0, "203.0.113.12": 43.0}) == [
        "this computer's clock is 42 s behind, and most machines agree with each other: set it"]


def test_a_majority_prevails_over_this_computer_and_the_rest() -> None:
    assert clock.complaints({"a": -60.0, "b": -60.0, "c": -60.0, "d": 0.0, "e": -60.0}) == [
        "this computer's clock is 60 s ahead, and most machines agree with each other: set it",
        "d: its clock is 60 s ahead: see timedatectl on it"]


@pytest.mark.parametrize("offsets", [
    {"a": 42.0, "b": 100.0}, {"a": 42.0, "b": -42.0}, {"a": 42.0, "b": 42.0, "c": 0.0}])
def test_without_a_majority_this_computer_is_right(offsets: dict[str, float]) -> None:
    blamed = [line.split(":")[0] for line in clock.complaints(offsets)]

    assert blamed == ["a", "b"]


@pytest.mark.parametrize(("seconds", "told"), [
    (119, "119 s ahead"), (300, "5 min ahead"), (-7200, "2 h behind"), (7190, "120 min ahead"),
    (172800, "2 days ahead")])
def test_an_offset_is_shown_in_a_unit_that_hints_at_its_cause(seconds: float, told: str) -> None:
    line, = clock.complaints({"a": 0.0, "b": seconds})

    assert line == f"b: its clock is {told}: see timedatectl on it"
