"""What tasks have written is read wherever they ran, in the order of time, and once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from stack.machine import LocalMachine
from stack.target import Target
from stack.task_logs import WINDOW, Line, Reader, Unreadable, nanoseconds
from tests.stack.conftest import AddCommand
from tests.stack.failing import error_of
from tests.stack.log_api import ENGINES_OWN, STDERR, STDOUT, Logging, stamp, two_machines, wrote

pytestmark = pytest.mark.unit

APP = {"service": "tally_app"}


@pytest.fixture
def api() -> Logging:
    return Logging()


@pytest.fixture
def target(api: Logging, tmp_path: Path, add_command: AddCommand,
           monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    add_command("docker")
    with two_machines(api, tmp_path, monkeypatch) as target:
        yield target


@pytest.fixture
def reader(target: Target) -> Reader:
    return Reader(target, "app", APP)


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


def test_the_lines_of_all_tasks_are_in_the_order_of_time(api: Logging, reader: Reader) -> None:
    api.task(1, "one", (STDOUT, f"{stamp(1)} a\n"), (STDERR, f"{stamp(2, 3)} d\n"))
    api.task(2, "two", (STDOUT, f"{stamp(1, 7)} b\n"), (STDOUT, f"{stamp(2, 2)} c\n"))
    api.task(3, "two", container=False)
    assert list(map(str, reader.read())) == [
        "app.1@host-one | a", "app.2@host-two | b", "app.2@host-two | c", "app.1@host-one | d"]


def test_a_task_of_a_global_service_has_its_nodes_name(api: Logging, target: Target) -> None:
    api.task(0, "two", wrote(1, "a"))
    assert list(map(str, Reader(target, "traefik", APP).read())) == ["traefik@host-two | a"]


@pytest.mark.parametrize(("text", "expected"), [
    ("1970-01-01T00:00:01.000000002Z", 1_000_000_002),
    ("1970-01-01T00:00:01.5Z", 1_500_000_000),
    ("1970-01-01T02:00:01+02:00", 1_000_000_000),
    ("1969-12-31T23:30:01.1-00:30", 1_100_000_000)])
def test_a_time_is_the_same_in_any_zone(text: str, expected: int) -> None:
    assert nanoseconds(text) == expected


def test_a_time_that_is_none_is_told_shortly() -> None:
    assert error_of(lambda: nanoseconds("x" * 99), Unreadable) \
        == f"its log has {'x' * 40!r} where a time should be"


def test_what_was_read_isnt_read_again(api: Logging, target: Target) -> None:
    api.task(1, "one", wrote(1, "old"), wrote(2, "a"), wrote(3, "b"))
    reader = Reader(target, "app", APP, tail=2)
    assert texts(reader.read()) == ["a", "b"]
    assert reader.read() == []
    # The clock was set back meanwhile.
    api.written["t1"] += [wrote(1, "c"), wrote(2, "")]
    api.task(2, "two", wrote(3, "all"), wrote(4, "of a new task"), wrote(5, "is read"))
    assert texts(reader.read()) == ["c", "", "all", "of a new task", "is read"]


def test_of_a_task_that_had_written_nothing_all_is_new(api: Logging, target: Target) -> None:
    api.task(1, "one")
    reader = Reader(target, "app", APP, tail=1)
    assert reader.read() == []
    api.written["t1"] += [wrote(1, "a"), wrote(2, "b")]
    assert texts(reader.read()) == ["a", "b"]


@pytest.mark.parametrize("many", [WINDOW - 1, WINDOW, WINDOW + 1, 25 * WINDOW])
def test_however_much_is_written_at_once_nothing_is_missed(
        api: Logging, reader: Reader, many: int) -> None:
    api.task(1, "one", wrote(1, "old"))
    reader.read()
    new = [(STDOUT, f"{stamp(2, number)} {number}\n") for number in range(many)]
    api.written["t1"] += new
    assert texts(reader.read()) == [str(number) for number in range(many)]
    assert reader.read() == []


def test_what_was_dropped_meanwhile_isnt_waited_for(api: Logging, reader: Reader) -> None:
    api.task(1, "one", wrote(1, "old"))
    reader.read()
    api.written["t1"] = [wrote(2, "a"), wrote(3, "b")]
    assert texts(reader.read()) == ["a", "b"]


def test_a_long_line_is_whole_though_docker_splits_it(api: Logging, reader: Reader) -> None:
    api.task(1, "one", (STDOUT, f"{stamp(1)} begun "), (STDERR, f"{stamp(2)} else\n"),
             (STDOUT, f"{stamp(1)} and "), (STDOUT, f"{stamp(1)} ended\n"))
    assert texts(reader.read()) == ["begun and ended", "else"]


def test_the_part_of_a_long_line_waits_for_the_rest(api: Logging, reader: Reader) -> None:
    api.task(1, "one", wrote(1, "a"), (STDOUT, f"{stamp(2)} begun "))
    assert texts(reader.read()) == ["a"]
    api.written["t1"].append((STDOUT, f"{stamp(2)} and ended\n"))
    assert texts(reader.read()) == ["begun and ended"]


def test_a_task_that_has_ended_is_read_to_its_end_and_asked_no_more(
        api: Logging, reader: Reader) -> None:
    api.task(1, "one", wrote(1, "a"), (STDOUT, f"{stamp(2)} killed in the mid"))
    assert texts(reader.read()) == ["a"]
    api.kinds["tasks"]["t1"]["Status"]["State"] = "failed"
    assert texts(reader.read()) == ["killed in the mid"]
    asked = len(api.asked)
    assert (reader.read(), len(api.asked)) == ([], asked)


def test_a_line_is_whatever_ends_with_a_newline(api: Logging, reader: Reader) -> None:
    api.task(1, "one", wrote(1, "Grüße\r, form\x0cfeed and\u2028more"))
    assert texts(reader.read()) == ["Grüße\r, form\x0cfeed and\u2028more"]


def test_the_log_of_a_container_that_is_gone_isnt_missed(api: Logging, reader: Reader) -> None:
    api.task(1, "one", wrote(1, "a"))
    api.task(2, "one", wrote(1, "b"))
    del api.written["t1"]
    assert (texts(reader.read()), reader.unread) == (["b"], {})


def test_a_log_that_the_engine_cant_read_is_told_with_its_words(
        api: Logging, reader: Reader) -> None:
    api.task(1, "one", wrote(1, "a"), (ENGINES_OWN, "Error grabbing logs: it is torn\n"))
    api.task(2, "one", wrote(1, "b"))
    api.task(3, "one")
    api.task(4, "one", (STDOUT, "no time\n"))
    api.unreadable["t3"] = "its driver does not support reading"
    assert texts(reader.read()) == ["b"]
    assert reader.unread == {
        "app.1@host-one": "Error grabbing logs: it is torn",
        "app.3@host-one": "its driver does not support reading",
        "app.4@host-one": "its log has 'no' where a time should be"}


def test_a_machine_that_cant_be_reached_is_told_and_a_node_that_was_removed_isnt(
        api: Logging, reader: Reader) -> None:
    api.node("three", "10.0.0.3")
    api.task(1, "one", wrote(1, "a"))
    api.task(2, "three", wrote(1, "b"))
    api.task(3, "removed", wrote(1, "c"))
    assert texts(reader.read()) == ["a"]
    assert reader.unread == {
        "app.2@host-three": "its machine can't be reached, or isn't in the inventory"}


class Mute(Logging):
    """An engine that ends the connection where it is asked for one container's log."""

    def answer(self, method: str, path: list[str], query: dict[str, list[str]],
               body: dict[str, Any]) -> tuple[int, Any]:
        if path[:2] == ["containers", "t1"]:
            self.asked.append(("t1", ""))
            raise ConnectionAbortedError
        return super().answer(method, path, query, body)


def test_an_engine_that_doesnt_answer_is_asked_once_for_all_its_tasks(
        tmp_path: Path, add_command: AddCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    add_command("docker")
    api = Mute()
    with two_machines(api, tmp_path, monkeypatch) as target:
        reader = Reader(target, "app", APP)
        api.task(1, "one", wrote(1, "a"))
        api.task(2, "one", wrote(1, "b"))
        api.task(3, "two", wrote(1, "c"))
        assert texts(reader.read()) == ["c"]
        assert reader.unread == dict.fromkeys(
            ("app.1@host-one", "app.2@host-one"), "the connection ended")
        assert [container for container, _ in api.asked] == ["t1", "t3"]


class Several(LocalMachine):
    """Stands for several managers; counts how often another one was to be asked."""

    passed_over = 0

    def pass_over(self) -> None:
        self.passed_over += 1


def test_without_an_answer_what_runs_is_remembered_and_another_manager_is_asked(
        api: Logging, target: Target) -> None:
    several = Several()
    reader = Reader(Target(target.fleet, several, target.client, target.cli, target.settings),
                    "app", APP)
    api.task(1, "one", wrote(1, "a"))
    api.failing = True
    with pytest.raises(docker.errors.APIError):
        reader.read()
    api.failing = False
    assert texts(reader.read()) == ["a"]
    api.failing = True
    assert (reader.read(), several.passed_over) == ([], 2)
    assert reader.unread == {"app.1@host-one": "the Swarm has no leader"}
