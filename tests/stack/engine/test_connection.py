"""The engine must be new enough, and one docker command must be able to build."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from threading import Thread

import docker.errors
import pytest
import requests

from stack.commands.one_line import in_one_line
from stack.engine import failures
from stack.engine.cli import DockerCli
from stack.engine.connection import NoAnswer, answers, check_api, connect
from stack.errors import OperatorError, Refused
from stack.machines.local import LocalMachine
from tests.support.executables import borrow, executable
from tests.support.failing import error_of

pytestmark = pytest.mark.unit

Cli = Callable[..., DockerCli]


def client(folder: Path, version: str, *, buildx: bool) -> str:
    """Write a docker command of some version, with or without the plugin; return its path."""
    return str(executable(
        folder / "docker", 'case "$*" in',
        f"*Client.Version*) echo {version};;",
        f"*buildx*) exit {0 if buildx else 1};;",
        '*) echo "$DOCKER_BUILDKIT|$*"; cat;; esac'))


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: LocalMachine) -> Cli:
    """Search only these folders for docker commands: `cli(tmp_path / "usr")`."""
    tools = tmp_path / "tools"
    tools.mkdir()
    borrow(tools, "which", "cat", "sh", "env")

    def find(*folders: Path, uses_registry: bool = False) -> DockerCli:
        monkeypatch.setenv("PATH", os.pathsep.join(map(str, (*folders, tools))))
        return DockerCli(machine, uses_registry)
    return find


class Far(LocalMachine):
    """A machine whose engine listens on the test's socket."""

    def __init__(self, socket: Path) -> None:
        self.docker_host = f"unix://{socket}"


class Api(BaseHTTPRequestHandler):
    """Answer every request with an engine's version, and keep the connection open."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        text = json.dumps({"ApiVersion": "1.41", "Version": "20.10.24"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


class Socket(ThreadingMixIn, UnixStreamServer):
    """A server on an engine's socket that counts its connections."""

    daemon_threads = True
    connections = 0

    def get_request(self) -> tuple[socket.socket, str]:
        connection, _ = super().get_request()
        self.connections += 1
        return connection, "a client"


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Socket]:
    """An engine that listens at `docker.sock` in the test's folder."""
    with Socket(str(tmp_path / "docker.sock"), Api) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_all_requests_share_a_connection(
        tmp_path: Path, listening: Socket) -> None:
    engine = connect(Far(tmp_path / "docker.sock"))
    for _ in range(3):
        engine.version(), engine.info(), engine.nodes.inspect("n1"), engine.container("c1")
    assert listening.connections == 1
    engine.close()


def test_an_engine_answers_while_something_listens_on_its_socket(
        tmp_path: Path, listening: Socket) -> None:
    assert answers(Far(tmp_path / "docker.sock"))
    assert not answers(Far(tmp_path / "other.sock"))


def test_an_engine_without_a_socket_is_refused_with_its_machine(tmp_path: Path) -> None:
    assert error_of(lambda: connect(Far(tmp_path / "docker.sock")), NoAnswer) == (
        "the Docker Engine of this machine doesn't answer (there is no socket): "
        "./fab bootstrap installs and starts it")


def test_an_engine_that_has_gone_is_refused_with_its_machine(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "docker.sock"))
    assert error_of(lambda: connect(Far(tmp_path / "docker.sock")), NoAnswer) == (
        "the Docker Engine of this machine doesn't answer (nothing listens on its socket): "
        "./fab bootstrap installs and starts it")


@pytest.mark.parametrize("api", ["1.41", "1.44", "1.100", "2.0"])
def test_an_engine_with_jobs_is_accepted(api: str) -> None:
    check_api(api, "20.10.24")


@pytest.mark.parametrize("api", ["1.40", "1.9", "0.99"])
def test_an_older_engine_is_refused(api: str) -> None:
    assert error_of(lambda: check_api(api, "19.03.15")) == (
        f"Docker 19.03.15 is too old: its API is {api}, at least 1.41 is needed: "
        "upgrade to Docker 20.10 or newer, then ./fab bootstrap")


@pytest.mark.parametrize(("error", "cause"), [
    (docker.errors.APIError("rpc error: no leader\nmore"), "rpc error: no leader"),
    (requests.ConnectionError("('Connection aborted.', FileNotFoundError(2, 'No such file'))"),
     "there is no socket"),
    (requests.ConnectionError("PermissionError(13, 'Permission denied')"),
     "this user may not open its socket"),
    (requests.ConnectionError("ConnectionRefusedError(111, 'Connection refused')"),
     "nothing listens on its socket"),
    (requests.ReadTimeout("x" * 500), "x" * 120),
])
def test_an_engine_that_fails_during_a_command_is_one_line(error: Exception, cause: str) -> None:
    @in_one_line
    def command() -> None:
        with failures.translated():
            raise error
    assert error_of(command, OperatorError) == (
        f"the Docker Engine failed during the command ({cause}): "
        "./fab status, then the same command again")


def test_a_commands_result_and_refusal_are_left_alone() -> None:
    @in_one_line
    def command(answer: str) -> str:
        if not answer:
            raise Refused("no answer")
        return answer
    assert command("well") == "well"
    assert error_of(lambda: command("")) == "no answer"


@pytest.mark.parametrize(("version", "buildx"), [
    ("20.10.24+dfsg1", False), ("22.06.0", False), ("23.0.0", True), ("28.2.2", True)])
def test_a_command_that_has_buildkit_builds(
        tmp_path: Path, cli: Cli, version: str, buildx: bool) -> None:
    command = client(tmp_path, version, buildx=buildx)
    assert cli(tmp_path).builder == command


def test_a_newer_command_without_the_plugin_is_skipped(tmp_path: Path, cli: Cli) -> None:
    client(tmp_path / "local", "28.2.2", buildx=False)
    distributions = client(tmp_path / "usr", "20.10.24", buildx=False)
    assert cli(tmp_path / "local", tmp_path / "usr").builder == distributions


def test_the_first_of_two_capable_commands_builds(tmp_path: Path, cli: Cli) -> None:
    first = client(tmp_path / "local", "28.2.2", buildx=True)
    client(tmp_path / "usr", "20.10.24", buildx=False)
    assert cli(tmp_path / "local", tmp_path / "usr").builder == first


def test_the_building_command_is_searched_for_once(tmp_path: Path, cli: Cli) -> None:
    command = client(tmp_path, "28.2.2", buildx=True)
    found = cli(tmp_path)
    assert found.builder == command
    Path(command).unlink()
    assert found.builder == command


def test_if_no_command_can_build_the_plugin_is_named(tmp_path: Path, cli: Cli) -> None:
    client(tmp_path / "local", "28.2.2", buildx=False)
    client(tmp_path / "usr", "23.0.1", buildx=False)
    assert error_of(lambda: cli(tmp_path / "local", tmp_path / "usr").builder) == (
        "no docker command here can build with BuildKit: apt-get install docker-buildx")


def test_a_client_is_asked_for_its_version_even_if_the_engine_is_silent(
        tmp_path: Path, cli: Cli) -> None:
    command = executable(tmp_path / "docker", "echo 20.10.24; echo no daemon >&2; exit 1")
    assert cli(tmp_path).builder == str(command)


@pytest.mark.parametrize("version", ["dev", "unknown-version", ""])
def test_a_client_without_a_version_needs_the_plugin(
        tmp_path: Path, cli: Cli, version: str) -> None:
    command = client(tmp_path / "one", version, buildx=True)
    client(tmp_path / "other", version, buildx=False)
    assert cli(tmp_path / "other", tmp_path / "one").builder == command


def test_a_folder_without_a_docker_command_is_skipped(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "docker").write_text("not executable")
    command = client(tmp_path / "usr", "20.10.24", buildx=False)
    assert cli(tmp_path / "empty", tmp_path / "data", tmp_path / "usr").commands == [command]


def test_without_a_docker_command_bootstrap_is_suggested(tmp_path: Path, cli: Cli) -> None:
    assert error_of(lambda: cli(tmp_path)) \
        == "there is no docker command on this machine: ./fab bootstrap installs it"


def test_a_build_uses_buildkit_and_the_machines_engine(tmp_path: Path, cli: Cli) -> None:
    client(tmp_path, "20.10.24", buildx=False)
    assert cli(tmp_path).build("--tag=a", ".", cwd=tmp_path).stdout \
        == "1|build --progress=plain --tag=a .\n"


def test_a_stack_command_uses_the_first_client_and_its_input(tmp_path: Path, cli: Cli) -> None:
    client(tmp_path / "local", "28.2.2", buildx=False)
    executable(tmp_path / "usr" / "docker", "exit 1")
    done = cli(tmp_path / "local", tmp_path / "usr").stack("config", "-c-", stdin="services: {}")
    assert (done.code, done.stdout) == (0, "1|stack config -c-\nservices: {}")


@pytest.mark.parametrize(("error", "cause"), [
    (Refused("the engine is old", "upgrade it"), "the engine is old"),
    (docker.errors.APIError("500 Server Error for http+docker://localhost/v1.47/nodes", None,
                            "rpc error: desc = The swarm does not have a leader. It's possible"),
     "the Swarm has no leader"),
    (docker.errors.APIError("404 Client Error for http+docker://localhost/v1.47/nodes", None,
                            "node x not found"), "node x not found"),
    (requests.ReadTimeout("HTTPConnectionPool(host='localhost'): Read timed out. (timeout=10)"),
     "the engine doesn't answer"),
    (requests.exceptions.ChunkedEncodingError("('Connection broken: IncompleteRead(3 bytes)')"),
     "the connection ended"),
    (requests.RequestException(), "RequestException")])
def test_the_reason_for_an_engines_failure_is_short(error: Exception, cause: str) -> None:
    with pytest.raises(OperatorError) as raised, failures.translated():
        raise error
    assert failures.cause_of(raised.value) == cause


def test_a_registrys_credentials_are_given_to_the_nodes(tmp_path: Path, cli: Cli) -> None:
    client(tmp_path, "20.10.24", buildx=False)
    docker = cli(tmp_path, uses_registry=True)
    assert docker.authenticated == ["--with-registry-auth"]
    assert docker.push("registry.example.org/app:1").stdout \
        == "1|push --quiet registry.example.org/app:1\n"


def test_without_credentials_none_are_sent(tmp_path: Path, cli: Cli) -> None:
    client(tmp_path, "20.10.24", buildx=False)
    docker = cli(tmp_path)
    assert docker.authenticated == []
    assert docker.push("localhost:1/app:1").stdout == "1|push --quiet localhost:1/app:1\n"
