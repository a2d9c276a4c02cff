"""A log is every task's, wherever it ran, in the order of time, and each line once."""

import struct
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import docker
import pytest

from stack import console, engine, logs
from stack.errors import OperatorError, Refused
from stack.fleet import Fleet, Member
from stack.inventory import Node
from stack.logs import Line, Reader
from stack.machine import LocalMachine
from stack.rollout import NotArrived
from stack.swarm import NAMESPACE
from stack.target import Target
from tests.stack.conftest import AddCommand
from tests.stack.engine_api import Engine
from tests.stack.failing import error_of
from tests.stack.inventories import load, node, swarm
from tests.stack.targets import aiming_at

pytestmark = pytest.mark.unit

APP = {"service": "tally_app"}


def stamp(second: int, nanosecond: int = 0) -> str:
    return f"2026-01-01T00:00:{second:02}.{nanosecond:09}Z"


class Logging(Engine):
    """An engine whose containers have logs: each line is a time and a text."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds["services"]["tally_app"] = {"ID": "tally_app", "Spec": {
            "Name": "tally_app", "Labels": {NAMESPACE: "tally"}}}
        self.written: dict[str, list[tuple[str, str]]] = {}
        self.asked: list[dict[str, list[str]]] = []

    def node(self, key: str, address: str) -> None:
        self.kinds["nodes"][key] = {"ID": key, "Description": {"Hostname": f"host-{key}"},
                                    "Status": {"State": "ready", "Addr": address}}

    def task(self, slot: int, at: str, *lines: tuple[str, str]) -> None:
        """Add a task of the application; without lines there is no container."""
        key = f"t{slot}"
        container = {"ContainerID": key} if lines else {}
        self.kinds["tasks"][key] = {
            "ID": key, "ServiceID": "tally_app", "Slot": slot, "NodeID": at,
            "Status": {"State": "running", "ContainerStatus": container}}
        self.written[key] = list(lines)

    def answer(self, method: str, path: list[str], query: dict[str, list[str]],
               body: dict[str, Any]) -> tuple[int, Any]:
        if path == ["version"]:
            return 200, {"ApiVersion": "1.41", "Version": "20.10.24"}
        if path[0] != "containers" or self.failing:
            return super().answer(method, path, query, body)
        if path[1] not in self.written:
            return 404, {"message": f"No such container: {path[1]}"}
        if path[2] == "json":
            return 200, {"Config": {"Tty": False}}
        self.asked.append(query)
        return 200, b"".join(self._frames(path[1], query))

    def _frames(self, container: str, query: dict[str, list[str]]) -> Iterator[bytes]:
        tail, since = query.get("tail", ["all"])[0], float(query.get("since", ["0"])[0])
        found = [(at, text) for at, text in self.written[container]
                 if datetime.fromisoformat(at).timestamp() >= since]
        for at, text in found if tail == "all" else found[len(found) - int(tail):]:
            data = f"{at} {text}\n".encode()
            yield struct.pack(">BxxxL", 1, len(data)) + data

    def _matches(self, each: dict[str, Any], wanted: dict[str, list[str]]) -> bool:
        if "id" in wanted:
            return each["ID"] in wanted["id"]
        return super()._matches(each, wanted)


@pytest.fixture(autouse=True)
def docker_command(add_command: AddCommand) -> None:
    add_command("docker")


@pytest.fixture
def api() -> Logging:
    made = Logging()
    made.node("one", "10.0.0.1")
    made.node("two", "10.0.0.2")
    return made


@pytest.fixture
def target(api: Logging, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """Two machines with the same engine; a third one of the inventory can't be reached."""
    chosen = load(tmp_path, swarm(node(1), node(2, "worker"), node(3, "worker")))
    there = [Member(each, LocalMachine()) for each in chosen.nodes[:2]]
    missing: dict[Node, OperatorError] = {chosen.nodes[2]: Refused("it can't be reached")}
    with aiming_at(api, Fleet(there, chosen, missing)) as aimed:
        def connect(machine: LocalMachine, timeout: float) -> docker.DockerClient:
            assert timeout == logs.TIMEOUT
            return aimed.client
        monkeypatch.setattr(engine, "connect", connect)
        monkeypatch.setattr(Target, "reach", lambda why: aimed)
        monkeypatch.setattr(console, "leave_stdout", lambda: None)
        yield aimed


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


def test_the_lines_of_all_tasks_are_in_the_order_of_time(api: Logging, target: Target) -> None:
    api.task(1, "one", (stamp(1), "a"), (stamp(2, 3), "d"))
    api.task(2, "two", (stamp(1, 7), "b"), (stamp(2, 2), "c"))
    api.task(3, "two")
    assert list(map(str, Reader(target, "app", APP).read())) == [
        "app.1@host-one | a", "app.2@host-two | b", "app.2@host-two | c", "app.1@host-one | d"]


def test_a_task_of_a_global_service_has_its_nodes_name(api: Logging, target: Target) -> None:
    api.task(0, "two", (stamp(1), "a"))
    assert list(map(str, Reader(target, "traefik", APP).read())) == ["traefik@host-two | a"]


def test_what_was_read_isnt_read_again(api: Logging, target: Target) -> None:
    api.task(1, "one", (stamp(1), "old"), (stamp(2, 1), "a"), (stamp(2, 2), "b"))
    reader = Reader(target, "app", APP, tail=2)
    assert texts(reader.read()) == ["a", "b"]
    assert reader.read() == []
    # Closer to the last one than a float of seconds can tell.
    api.written["t1"] += [(stamp(2, 3), "c"), (stamp(3), "")]
    api.task(2, "two", (stamp(3), "all"), (stamp(4), "of a new task"))
    assert texts(reader.read()) == ["c", "", "all", "of a new task"]
    assert api.asked[-2]["since"][0] >= "1767225601.99"


def test_a_line_is_whatever_ends_with_a_newline(api: Logging, target: Target) -> None:
    api.task(1, "one", (stamp(1), "Grüße\r, form\x0cfeed and\u2028more"))
    assert texts(Reader(target, "app", APP).read()) == ["Grüße\r, form\x0cfeed and\u2028more"]


def test_the_log_of_a_container_that_is_gone_isnt_missed(api: Logging, target: Target) -> None:
    api.task(1, "one", (stamp(1), "a"))
    api.task(2, "one", (stamp(1), "b"))
    del api.written["t1"]
    reader = Reader(target, "app", APP)
    assert (texts(reader.read()), reader.unread) == (["b"], {})


def test_a_machine_that_cant_be_reached_is_told_and_a_node_that_was_removed_isnt(
        api: Logging, target: Target) -> None:
    api.node("three", "10.0.0.3")
    api.task(1, "one", (stamp(1), "a"))
    api.task(2, "three", (stamp(1), "b"))
    api.task(3, "removed", (stamp(1), "c"))
    reader = Reader(target, "app", APP)
    assert texts(reader.read()) == ["a"]
    assert reader.unread == {"app.2@host-three": "its machine can't be reached"}


def test_an_engine_that_fails_is_told_and_what_runs_is_remembered(
        api: Logging, target: Target) -> None:
    api.task(1, "one", (stamp(1), "a"))
    reader = Reader(target, "app", APP)
    api.failing = True
    with pytest.raises(docker.errors.APIError):
        reader.read()
    api.failing = False
    assert texts(reader.read()) == ["a"]
    api.failing = True
    assert reader.read() == []
    assert "the Swarm has no leader" in reader.unread["app.1@host-one"]


@pytest.mark.parametrize(("lines", "shown"), [
    ("all", "abcd"), ("9", "abcd"), ("2", "cd"), ("0", "")])
def test_the_last_lines_of_all_tasks_are_shown(
        api: Logging, target: Target, capsys: pytest.CaptureFixture[str], lines: str,
        shown: str) -> None:
    api.task(1, "one", (stamp(1), "a"), (stamp(4), "d"))
    api.task(2, "two", (stamp(2), "b"), (stamp(3), "c"))
    logs.logs("app", follow=False, lines=lines)
    assert "".join(line[-1] for line in capsys.readouterr().out.splitlines()) == shown


def test_what_cant_be_read_is_an_error_after_the_rest(
        api: Logging, target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    api.node("three", "10.0.0.3")
    api.task(1, "one", (stamp(1), "a"))
    api.task(2, "three", (stamp(1), "b"))
    assert error_of(lambda: logs.logs("app", follow=False, lines="100"), OperatorError) == (
        "the log of app.2@host-three can't be read: its machine can't be reached: ./fab status")
    assert capsys.readouterr().out == "app.1@host-one | a\n"


def test_to_follow_is_to_go_on_until_ctrl_c_and_to_complain_once(
        api: Logging, target: Target, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    api.node("three", "10.0.0.3")
    api.task(1, "one", (stamp(1), "old"))
    api.task(2, "three", (stamp(1), "lost"))
    rounds = iter(["a", "b"])

    def sleep(seconds: float) -> None:
        text = next(rounds, None)
        if text is None:
            raise KeyboardInterrupt
        api.written["t1"].append((stamp(2, ord(text)), text))
    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(SystemExit) as ended:
        logs.logs("app", follow=True, lines="0")
    assert ended.value.code == 130
    assert capsys.readouterr().out.splitlines() == [
        "the log of app.2@host-three can't be read: its machine can't be reached",
        "app.1@host-one | a", "app.1@host-one | b"]


@pytest.mark.parametrize("lines", ["-1", "ten", "", "1e3"])
def test_a_number_of_lines_that_is_none_is_refused(lines: str) -> None:
    assert error_of(lambda: logs.logs("app", follow=False, lines=lines)) \
        == f"--lines={lines!r}: it should be a number, or all"


def test_a_service_that_isnt_there_is_refused(target: Target) -> None:
    assert error_of(lambda: logs.logs("mail", follow=False, lines="1")) \
        == "there is no service 'mail': choose one of: app"


def test_the_cause_of_a_failure_is_the_end_of_the_tasks_own_log(
        api: Logging, target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    api.task(1, "one", *((stamp(second), f"line {second}") for second in range(30)))
    api.task(2, "two", (stamp(59), "another task's"))
    logs.tell_cause(target, NotArrived("app: exited", task="t1"))
    assert capsys.readouterr().out.splitlines() == [
        f"    line {second}" for second in range(30 - logs.CULPRIT_LINES, 30)]


def test_the_cause_of_a_failure_is_what_docker_said(
        target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    logs.tell_cause(target, NotArrived("refused", said=["no such image"]))
    assert capsys.readouterr().out == "    no such image\n"


def test_where_nobody_answers_a_failure_is_told_without_a_log(
        api: Logging, target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    api.failing = True
    logs.tell_cause(target, NotArrived("app: exited", task="t1"))
    assert capsys.readouterr().out == ""
