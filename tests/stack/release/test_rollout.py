"""A rollout is judged by Docker's output and by what visitors see."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stack import console
from stack.engine.cli import DockerCli
from stack.machines.local import LocalMachine
from stack.release import rollout, verdict
from stack.release.rollout import NotArrived
from stack.swarm.names import NAMESPACE
from stack.swarm.service_state import Progress
from stack.swarm.stackfile import Stack
from tests.stack.conftest import AddCommand
from tests.support.engine_api import FakeEngine, reached
from tests.support.failing import error_of
from tests.support.managers import Several, Unreachable
from tests.support.serving import serving
from tests.support.terminal import Terminal

pytestmark = pytest.mark.unit

HERE = "127.0.0.1"
# This machine too, but nothing listens there.
NOBODY = "127.0.0.2"
VERSION = b'{"version": "1.4.0+57"}'
STACK = Stack({"services": {"app": {"image": "app:1", "command": ["echo", "$HOME"]}}})
Serve = Callable[..., int]
Cli = Callable[..., DockerCli]


@pytest.fixture
def cli(machine: LocalMachine, add_command: AddCommand) -> Cli:
    """Write a docker command that runs these lines: `cli("echo Creating; exit 1")`."""
    def write(*lines: str, uses_registry: bool = False) -> DockerCli:
        add_command("docker", *lines)
        return DockerCli(machine, uses_registry)
    return write


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve one answer to every request, on the port that is returned."""
    with ExitStack() as servers:
        def begin(status: int, body: bytes, page: int = 200) -> int:
            class Answer(BaseHTTPRequestHandler):
                def do_HEAD(self) -> None:
                    self.send_response(page)
                    self.end_headers()

                def do_GET(self) -> None:
                    self.send_response(status if self.path == "/version" else 404)
                    self.end_headers()
                    self.wfile.write(body)

                def log_message(self, format: str, *args: object) -> None:
                    """Keep the test's output clean."""

            return servers.enter_context(serving(Answer))

        yield begin


def test_swarm_gets_the_whole_stack(tmp_path: Path, cli: Cli) -> None:
    rollout.apply(cli(f'echo "$*" > {tmp_path}/said; cat > {tmp_path}/stack'), STACK,
                  prune=True)
    assert (tmp_path / "stack").read_text() == STACK.text()
    assert (tmp_path / "said").read_text() == (
        "stack deploy --compose-file=- "
        "--resolve-image=always --prune tally\n")


def test_nodes_get_the_credentials_for_a_registry(tmp_path: Path, cli: Cli) -> None:
    docker = cli(f'echo "$*" > {tmp_path}/said; cat > /dev/null', uses_registry=True)
    rollout.apply(docker, STACK, prune=True)
    assert (tmp_path / "said").read_text() == (
        "stack deploy "
        "--compose-file=- --resolve-image=always --with-registry-auth --prune tally\n")


def test_a_part_of_the_stack_removes_nothing_else(tmp_path: Path, cli: Cli) -> None:
    rollout.apply(cli(f'echo "$*" > {tmp_path}/said; cat > /dev/null'), STACK,
                  prune=False)
    assert "--prune" not in (tmp_path / "said").read_text()


def test_a_stack_that_docker_refuses_is_an_error(cli: Cli) -> None:
    docker = cli("cat > /dev/null; echo Creating; echo 'no such image' >&2; exit 1")
    with pytest.raises(NotArrived) as raised:
        rollout.apply(docker, STACK, prune=True)
    assert raised.value.cause == "docker stack deploy refused the stack: no such image"
    assert raised.value.said == ["Creating", "no such image"]


# Fails with a text for a number of calls, then succeeds.
FALTERING = ('cat > /dev/null; echo >> {0}/calls', 'if [ $(wc -l < {0}/calls) -le {1} ]; then',
             '    echo "{2}" >&2; exit 1', 'fi')
OUT_OF_SEQUENCE = "Error response from daemon: rpc error: desc = update out of sequence"


def faltering(folder: Path, failures: int, text: str) -> list[str]:
    return [line.format(folder, failures, text) for line in FALTERING]


def calls(folder: Path) -> int:
    return len((folder / "calls").read_text().splitlines())


@pytest.mark.parametrize("failures", [1, 3])
def test_a_service_that_swarm_changed_is_retried(
        tmp_path: Path, cli: Cli, failures: int) -> None:
    rollout.apply(cli(*faltering(tmp_path, failures, OUT_OF_SEQUENCE)), STACK, prune=True)
    assert calls(tmp_path) == failures + 1


@pytest.mark.parametrize(("text", "expected"), [(OUT_OF_SEQUENCE, 4), ("no such image", 1)])
def test_a_refusal_is_final_at_once_or_after_four_tries(
        tmp_path: Path, cli: Cli, text: str, expected: int) -> None:
    docker = cli(*faltering(tmp_path, 9, text))
    assert error_of(lambda: rollout.apply(docker, STACK, prune=True), NotArrived) \
        == f"docker stack deploy refused the stack: {text}"
    assert calls(tmp_path) == expected


@pytest.mark.parametrize("warning", [
    "Ignoring unsupported options: build", "Ignoring deprecated options:"])
def test_a_stack_with_ignored_options_is_an_error(
        cli: Cli, warning: str) -> None:
    docker = cli(f"cat > /dev/null; echo '{warning}' >&2")
    assert error_of(lambda: rollout.apply(docker, STACK, prune=True), NotArrived) \
        == f"docker stack deploy ignored part of the stack: {warning}"


@pytest.mark.parametrize("said", [
    "Cannot connect to the Docker daemon at unix:///nonexistent. Is the docker daemon running?",
    "failed to connect to the docker API at unix:///nonexistent"])
def test_a_valid_stack_has_no_complaint(cli: Cli, said: str) -> None:
    docker = cli("cat > /dev/null", f"echo '{said}' >&2; exit 1")
    assert rollout.check(docker, STACK) == ""


def test_checking_a_stack_needs_no_engine(tmp_path: Path, cli: Cli) -> None:
    docker = cli(f'echo "$host $*" > {tmp_path}/said; cat > {tmp_path}/stack; exit 1')
    rollout.check(docker, STACK)
    assert (tmp_path / "said").read_text() \
        == "unix:///nonexistent stack deploy --compose-file=- tally\n"
    assert (tmp_path / "stack").read_text() == STACK.text()


def test_dockers_complaint_is_its_last_line(cli: Cli) -> None:
    docker = cli("cat > /dev/null; echo reading >&2",
                 "echo 'services.app.ports must be a list' >&2; exit 1")
    assert rollout.check(docker, STACK) == "services.app.ports must be a list"


def test_ignored_options_are_a_complaint(cli: Cli) -> None:
    docker = cli("cat > /dev/null; echo 'Ignoring unsupported options: build' >&2",
                 "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    assert rollout.check(docker, STACK) == "Ignoring unsupported options: build"


def prove(port: int, version: str = "1.4.0+57", hosts: Sequence[str] = (HERE,),
          timeout: float = 0) -> None:
    verdict.prove(lambda: list(hosts), port, version, timeout)


def test_the_version_is_the_one_visitors_get(serve: Serve) -> None:
    port = serve(200, VERSION)
    assert verdict.serving_version(HERE, port) == "1.4.0+57"
    prove(port)


def test_a_version_without_its_page_has_not_arrived(serve: Serve) -> None:
    port = serve(200, VERSION, 500)
    assert error_of(lambda: prove(port), NotArrived) \
        == f"1.4.0+57 serves /version at {HERE}:{port}, but not the page"


@pytest.mark.parametrize("lost", [1, 3])
def test_large_answers_have_to_arrive_as_well(lost: int) -> None:
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        """The largest packets of one answer are lost, and then the visitor gives up."""

        def do_GET(self) -> None:
            asked.append(self.path)
            cut = self.path != "/version" and len(asked) - 1 == lost
            self.send_response(200)
            self.send_header("Content-Length", str(len(VERSION) + cut))
            self.end_headers()
            self.wfile.write(VERSION)

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

    with serving(Answer) as port:
        refused = error_of(lambda: verdict.prove(
            lambda: [HERE], port, "1.4.0+57", timeout=0, times=3), NotArrived)
        assert asked == ["/version", *["/version?padding=8192"] * lost]
        verdict.prove(lambda: [HERE], port, "1.4.0+57", timeout=0, times=3)
    assert asked[lost + 1:] == ["/version", *["/version?padding=8192"] * 3]
    assert refused == (f"small answers of http://{HERE}:{port} arrive, and large ones don't: the "
                       "network between the machines may take smaller packets than they say (MTU)")


def test_every_edge_node_has_to_serve_the_version(serve: Serve) -> None:
    port = serve(200, VERSION)
    assert error_of(lambda: prove(port, hosts=[NOBODY, HERE, NOBODY]), NotArrived) == "; ".join(
        [f"http://{NOBODY}:{port}/version returns no version (ConnectionError), not 1.4.0+57"] * 2)


def test_an_edge_node_that_leaves_is_no_longer_waited_for(serve: Serve) -> None:
    port, edges = serve(200, VERSION), [[HERE, NOBODY], [HERE, NOBODY], [HERE]]
    verdict.prove(lambda: edges.pop(0), port, "1.4.0+57", timeout=60)
    assert edges == []


@pytest.mark.parametrize(("status", "body", "reason"), [
    (503, b'{"version": "1.4.0+57"}', "HTTPError"),
    (200, b"<html>", "JSONDecodeError"),
    (200, b"{}", "KeyError"),
    (200, b"[]", "TypeError"),
])
def test_an_answer_without_a_version_is_none(
        serve: Serve, status: int, body: bytes, reason: str) -> None:
    assert verdict.serving_version(HERE, serve(status, body)) == f"no version ({reason})"


def test_a_port_without_an_answer_has_no_version() -> None:
    assert verdict.serving_version(HERE, 1) == "no version (ConnectionError)"


def test_another_version_is_not_accepted(serve: Serve) -> None:
    port = serve(200, b'{"version": "1.3.0+56"}')
    assert error_of(lambda: prove(port), NotArrived) \
        == f"http://127.0.0.1:{port}/version returns 1.3.0+56, not 1.4.0+57"


def test_no_proxy_is_used_for_this_machine(
        serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert verdict.serving_version(HERE, serve(200, b'{"version": "1.4.0+57"}')) == "1.4.0+57"


def test_every_service_is_unsettled_while_the_engine_is_silent() -> None:
    stack = Stack({"services": {"app": {}, "postgres": {}}})
    fake = FakeEngine(failing=True)
    with reached(fake) as engine:
        failing = rollout.look(engine, stack)
    gone = rollout.look(engine, stack)
    assert failing == gone == [Progress("app", 0, 0), Progress("postgres", 0, 0)]


def test_a_service_that_never_settles_fails_at_the_deadline(machine: LocalMachine) -> None:
    with reached(FakeEngine(failing=True)) as engine:
        assert error_of(lambda: rollout.wait(engine, machine, STACK, timeout=0),
                        NotArrived) \
            == "not stable after 0 s: app 0/0 (no up-to-date task)"


class Starting(FakeEngine):
    """An engine whose only task runs from the third poll on."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        template = {"ContainerSpec": {"Image": "app:2"}}
        self.kinds["services"]["s"] = {"ID": "s", "UpdatedAt": "2026-01-01T00:00:00Z", "Spec": {
            "Name": "tally_app", "Labels": {NAMESPACE: "tally"}, "TaskTemplate": template,
            "Mode": {"Replicated": {"Replicas": 1}}}}
        self.kinds["nodes"]["n"] = {"ID": "n", "Description": {"Hostname": "tally-1"}}
        self.kinds["tasks"]["t"] = {
            "ID": "t", "ServiceID": "s", "Spec": template, "Slot": 1, "NodeID": "n",
            "CreatedAt": "2026-01-01T00:00:00.5Z", "DesiredState": "running",
            "Status": {"State": "starting", "Timestamp": "2026-01-01T00:00:01.5Z"}}

    def answer(self, method: str, path: list[str], query: dict[str, list[str]],
               body: dict[str, Any]) -> tuple[int, Any]:
        self.asked.append(path[0])
        if self.asked.count("tasks") == 3:
            self.kinds["tasks"]["t"]["Status"]["State"] = "running"
        return super().answer(method, path, query, body)


def test_a_terminal_shows_the_tasks_with_one_request(
        machine: LocalMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, terminal = Starting(), Terminal()
    monkeypatch.setattr(console, "OUT", terminal.console)
    with reached(fake) as engine:
        rollout.wait(engine, machine, STACK, timeout=60, held=0)
    assert fake.asked == ["services", "tasks", "nodes"] + ["services", "tasks"] * 2
    assert all(word in terminal.said for word in ("tally-1", "starting", "running"))
    assert terminal.screen() == []


def test_a_log_shows_the_counts_without_another_request(
        machine: LocalMachine, capsys: pytest.CaptureFixture[str]) -> None:
    fake = Starting()
    with reached(fake) as engine:
        rollout.wait(engine, machine, STACK, timeout=60, held=0)
    assert fake.asked == ["services", "tasks"] * 3
    assert capsys.readouterr().out == "  waiting        app 0/1 …\n"


class Clock:
    """A clock that advances only during a sleep."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds


def test_the_last_check_follows_a_long_enough_steady_time(
        machine: LocalMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, clock = Starting(), Clock()
    fake.kinds["tasks"]["t"]["Status"]["State"] = "running"
    monkeypatch.setattr(rollout, "time", SimpleNamespace(
        monotonic=lambda: clock.now, sleep=clock.sleep))
    with reached(fake) as engine:
        rollout.wait(engine, machine, STACK, timeout=60, held=1.0)
    assert clock.slept == [rollout.POLL] * 3 + [0.1]


class Doubled(FakeEngine):
    """An engine that keeps two tasks of a service that should have one."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds.update(Starting().kinds)
        running = {**self.kinds["tasks"]["t"], "Status": {
            "State": "running", "Timestamp": "2026-01-01T00:00:01.5Z"}}
        self.kinds["tasks"] = {key: {**running, "ID": key} for key in ("one", "two")}


def test_more_tasks_than_requested_are_reported_at_the_deadline(machine: LocalMachine) -> None:
    with reached(Doubled()) as engine:
        assert error_of(lambda: rollout.wait(engine, machine, STACK, timeout=0), NotArrived) \
            == "not stable after 0 s: app 2/1 (more tasks running than requested)"


def test_a_wait_ends_when_no_manager_can_be_reached() -> None:
    fake = FakeEngine()
    fake.failing = True
    with reached(fake) as engine:
        said = error_of(lambda: rollout.wait(engine, Unreachable(), STACK, timeout=60),
                        NotArrived)
    assert said == "lost contact with every manager"


def test_a_silent_manager_is_replaced(
        monkeypatch: pytest.MonkeyPatch) -> None:
    now, several, answer = [0.0], Several(), [Progress("app", 1, 2)]
    monkeypatch.setattr(rollout, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with reached(FakeEngine()) as engine:
        managers = rollout.Managers(engine, several)
        for at, said, passed_over in ((10, [], 0), (14, answer, 0), (29, [], 0), (30, [], 1),
                                      (44, [], 1), (46, [], 2)):
            now[0] = float(at)
            managers.require_answer(said)
            assert several.passed_over == passed_over, at


Ask = Callable[..., bool]


@pytest.fixture
def believed(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Return whether two running tasks count as steady at a time: `believed(7.0, dead=12.0)`."""
    now = [0.0]
    monkeypatch.setattr(rollout, "time", SimpleNamespace(monotonic=lambda: now[0]))
    steadiness = rollout.Steadiness(held=5)

    def ask(at: float, *ids: str, **lives: float) -> bool:
        now[0] = at
        return steadiness.believes([Progress("app", 2, 2, frozenset(ids or ("a", "b")), full=True,
                                             settled=True, lives=lives)])
    return ask


def test_tasks_are_steady_once_they_have_run_for_a_while(believed: Ask) -> None:
    assert not believed(0.0)
    assert not believed(4.9)
    assert believed(5.0)


def test_another_task_restarts_the_steady_time(believed: Ask) -> None:
    assert not believed(0.0)
    assert not believed(4.0, "a", "c")
    assert not believed(8.9, "a", "c")
    assert believed(9.0, "a", "c")


def test_the_others_must_outlive_a_task_that_died_during_the_wait(believed: Ask) -> None:
    assert not believed(0.0)
    assert not believed(3.0, "a", "c", dead=12.0)
    assert not believed(14.9, "a", "c", dead=12.0)
    assert believed(15.0, "a", "c", dead=12.0)


def test_a_task_that_died_earlier_doesnt_count(believed: Ask) -> None:
    assert not believed(0.0, dead=100.0)
    assert believed(5.0, dead=100.0)
