"""Task logs are read from every node, in the order of time, and each line once."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stack.engine.container_logs import LONGEST_MESSAGE
from stack.engine.failures import ApiError
from stack.release.target import Target
from stack.swarm import task_logs
from stack.swarm.task_logs import PAUSE, WINDOW, Line, Reader, nanoseconds
from tests.stack.conftest import AddCommand
from tests.support.log_api import (
    ENGINES_OWN, STDERR, STDOUT, Logging, Message, stamp, two_machines, wrote)
from tests.support.managers import Several

pytestmark = pytest.mark.unit

APP = {"service": "tally_app"}


@pytest.fixture
def target(two: Target) -> Target:
    return two


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
    ("1969-12-31T23:30:01.1-00:30", 1_100_000_000), ("none", 0)])
def test_a_time_is_the_same_in_any_zone(text: str, expected: int) -> None:
    assert nanoseconds(text) == expected


def test_messages_are_read_only_once(api: Logging, target: Target) -> None:
    api.task(1, "one", wrote(1, "old"), wrote(2, "a"), wrote(3, "b"))
    reader = Reader(target, "app", APP, tail=2)
    assert texts(reader.read()) == ["a", "b"]
    assert reader.read() == []
    # The clock was set back in between.
    api.written["t1"] += [wrote(1, "c"), wrote(2, "")]
    api.task(2, "two", wrote(3, "all"), wrote(4, "of a new task"), wrote(5, "is read"))
    assert texts(reader.read()) == ["c", "", "all", "of a new task", "is read"]


def test_all_messages_of_a_silent_task_are_new(api: Logging, target: Target) -> None:
    api.task(1, "one")
    reader = Reader(target, "app", APP, tail=1)
    assert reader.read() == []
    api.written["t1"] += [wrote(1, "a"), wrote(2, "b")]
    assert texts(reader.read()) == ["a", "b"]


@pytest.mark.parametrize("many", [WINDOW - 1, WINDOW, WINDOW + 1, 25 * WINDOW])
def test_nothing_is_missed_however_much_is_written(
        api: Logging, reader: Reader, many: int) -> None:
    api.task(1, "one", wrote(1, "old"))
    reader.read()
    new = [(STDOUT, f"{stamp(2, number)} {number}\n") for number in range(many)]
    api.written["t1"] += new
    assert texts(reader.read()) == [str(number) for number in range(many)]
    assert reader.read() == []


def test_dropped_messages_arent_waited_for(api: Logging, reader: Reader) -> None:
    api.task(1, "one", wrote(1, "old"))
    reader.read()
    api.written["t1"] = [wrote(2, "a"), wrote(3, "b")]
    assert texts(reader.read()) == ["a", "b"]


# A character of two bytes is split between the first two parts.
BEGUN, MIDDLE, ENDED = "a" + "ü" * 8192, "b" * LONGEST_MESSAGE, "ended"
LONG = (BEGUN + MIDDLE + ENDED).encode()
PARTS = [LONG[:LONGEST_MESSAGE], LONG[LONGEST_MESSAGE:2 * LONGEST_MESSAGE],
         LONG[2 * LONGEST_MESSAGE:]]


def parts(end: bytes) -> list[Message]:
    """Return a long line in parts, as Docker sends it, with this end on the last part."""
    return [(STDOUT, f"{stamp(1)} ".encode() + part) for part in (*PARTS[:2], PARTS[2] + end)]


@pytest.mark.parametrize("end", [b"\n", b""], ids=["docker 26", "docker 20"])
def test_a_long_line_is_complete_although_docker_splits_it(
        api: Logging, reader: Reader, end: bytes) -> None:
    first, second, third = parts(end)
    api.task(1, "one", first, (STDERR, f"{stamp(2)} else\n"), second, third, wrote(3, "next"))
    assert texts(reader.read()) == [LONG.decode(), "else", "next"]


@pytest.mark.parametrize("end", [b"\n", b""], ids=["docker 26", "docker 20"])
def test_the_part_of_a_long_line_waits_for_the_rest(
        api: Logging, target: Target, end: bytes) -> None:
    first, second, third = parts(end)
    api.task(1, "one", wrote(0, "old"), wrote(1, "a"), first)
    reader = Reader(target, "app", APP, tail=2)
    assert texts(reader.read()) == ["a"]
    api.written["t1"] += [second, (STDERR, f"{stamp(2)} else\n")]
    assert texts(reader.read()) == ["else"]
    api.written["t1"].append(third)
    assert texts(reader.read()) == [LONG.decode()]


def test_an_ended_task_is_read_to_its_end_and_then_left_alone(
        api: Logging, reader: Reader) -> None:
    api.task(1, "one", wrote(1, "a"), parts(b"")[0])
    assert texts(reader.read()) == ["a"]
    api.kinds["tasks"]["t1"]["Status"]["State"] = "failed"
    assert [text[:9] for text in texts(reader.read())] == ["aüüüüüüüü"]
    asked = len(api.asked)
    assert (reader.read(), len(api.asked)) == ([], asked)


def test_a_line_ends_with_a_newline(api: Logging, reader: Reader) -> None:
    api.task(1, "one", wrote(1, "Grüße\r, form\x0cfeed and\u2028more"))
    assert texts(reader.read()) == ["Grüße\r, form\x0cfeed and\u2028more"]


def test_the_log_of_a_removed_container_is_no_error(api: Logging, reader: Reader) -> None:
    api.task(1, "one", wrote(1, "a"))
    api.task(2, "one", wrote(1, "b"))
    del api.written["t1"]
    assert (texts(reader.read()), reader.unread) == (["b"], {})


def test_an_unreadable_log_is_reported_with_the_engines_error(
        api: Logging, reader: Reader) -> None:
    api.task(1, "one", wrote(1, "a"), (ENGINES_OWN, "Error grabbing logs:\nit is torn\n"))
    api.task(2, "one", wrote(1, "b"))
    api.task(3, "one")
    api.unreadable["t3"] = "its driver does not support reading"
    for expected in (["a", "b"], []):
        assert texts(reader.read()) == expected
        assert reader.unread == {
            "app.1@host-one": "Error grabbing logs: it is torn",
            "app.3@host-one": "its driver does not support reading"}


def test_a_node_without_a_name_is_called_by_its_id(api: Logging, reader: Reader) -> None:
    del api.kinds["nodes"]["one"]["Description"]["Hostname"]
    api.task(1, "one", wrote(1, "a"))
    assert list(map(str, reader.read())) == ["app.1@one | a"]


def test_an_unreachable_machine_is_reported_but_not_a_removed_node(
        api: Logging, reader: Reader) -> None:
    api.node("three", "10.0.0.3")
    api.task(1, "one", wrote(1, "a"))
    api.task(2, "three", wrote(1, "b"))
    api.task(3, "removed", wrote(1, "c"))
    assert texts(reader.read()) == ["a"]
    assert reader.unread == {
        "app.2@host-three": "its machine can't be reached, or isn't in the inventory"}


class Mute(Logging):
    """An engine that closes the connection when asked for one container's log."""

    def log(self, node: str, container: str, tail: str) -> tuple[int, Any]:
        answer = super().log(node, container, tail)
        if container == "t1":
            raise ConnectionAbortedError
        return answer


def test_an_engine_that_doesnt_answer_is_left_alone_for_a_while(
        tmp_path: Path, add_command: AddCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    add_command("docker")
    api, now = Mute(), [100.0]
    monkeypatch.setattr(task_logs, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with two_machines(api, tmp_path, monkeypatch) as target:
        reader = Reader(target, "app", APP)
        api.task(1, "one", wrote(1, "a"))
        api.task(2, "one", wrote(1, "b"))
        api.task(3, "two", wrote(1, "c"))
        for passed, expected, asked in ((0.0, ["c"], ["t1", "t3"]), (PAUSE - 1, [], ["t3"]),
                                        (1.0, [], ["t1", "t3"])):
            now[0] += passed
            api.asked.clear()
            assert texts(reader.read()) == expected
            assert reader.unread == dict.fromkeys(
                ("app.1@host-one", "app.2@host-one"), "the connection ended")
            assert [container for container, _ in api.asked] == asked


def test_without_an_answer_another_manager_is_asked(
        api: Logging, target: Target) -> None:
    several = Several()
    reader = Reader(Target(target.fleet, several, target.engine, target.cli, target.settings),
                    "app", APP)
    api.task(1, "one", wrote(1, "a"))
    api.failing = True
    with pytest.raises(ApiError):
        reader.read()
    api.failing = False
    assert texts(reader.read()) == ["a"]
    api.failing = True
    api.written["t1"].append(wrote(2, "b"))
    assert (texts(reader.read()), several.passed_over) == (["b"], 1)
    assert reader.unread == {"new tasks": "the Swarm has no leader"}
