"""A docker command reaches the engine of its machine, whatever a person has chosen."""

import json
from pathlib import Path

import pytest

from stack.machines import docker_command
from stack.machines.local import LocalMachine
from stack.machines.machine import CommandFailed
from tests.stack.conftest import ELSEWHERE, AddCommand
from tests.support import sshd as support
from tests.support.executables import executable

pytestmark = pytest.mark.unit

SHOW = 'echo "$host|$*|$(export -p)"'
CURRENT = "{{if .Current}}{{.Name}} {{.DockerEndpoint}}{{end}}"


def configure(home: Path) -> None:
    """Choose another context, with plugins and helpers that can't work."""
    folder = home / ".docker"
    (folder / "contexts/meta/other").mkdir(parents=True)
    (folder / "contexts/meta/other/meta.json").write_text(json.dumps(
        {"Name": "other", "Endpoints": {"docker": {"Host": ELSEWHERE["DOCKER_HOST"]}}}))
    (folder / "config.json").write_text(json.dumps({
        "currentContext": "other", "credsStore": "missing", "HttpHeaders": {"X-Theirs": "1"},
        "cliPluginsExtraDirs": ["/nonexistent"], "plugins": {"buildx": {"enabled": "false"}}}))


def test_dockers_own_client_works_with_the_machines_engine(
        machine: LocalMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / ".docker"))

    said = docker_command.must(machine, "context", "ls", "--format", CURRENT)
    assert said.split() == ["default", "unix:///var/run/docker.sock"]
    client = docker_command.run(machine, "version", "--format={{.Client.Context}}",
                                host="unix:///nonexistent")
    assert client.stdout.split() == ["default"]


def test_nothing_of_a_persons_environment_reaches_it(
        machine: LocalMachine, add_command: AddCommand) -> None:
    add_command("docker", SHOW)

    host, words, known = docker_command.must(machine, "ps", "a b").split("|")
    assert (host, words) == (docker_command.HOST, "ps a b")
    assert not [name for name in ELSEWHERE if f"{name}=" in known and name != "DOCKER_BUILDKIT"]
    assert "DOCKER_BUILDKIT='1'" in known


def test_a_persons_own_configuration_is_not_the_commands(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    assert LocalMachine().docker_config == "/home/ada/.cache/tally/docker"


def test_a_script_calls_it_too(machine: LocalMachine, add_command: AddCommand) -> None:
    add_command("docker", 'echo "$host $*"; [ "$1" != rm ]')
    script = docker_command.script(machine, 'docker image ls "$1" | cat; docker rm || echo failed')

    assert machine.must(["sh", "-c", script, "script", "a b"]).splitlines() == [
        f"{docker_command.HOST} image ls a b", f"{docker_command.HOST} rm", "failed"]


def test_a_command_that_fails_is_named_by_its_own_words(
        machine: LocalMachine, add_command: AddCommand) -> None:
    add_command("docker", "echo 'no such volume' >&2; exit 1")

    with pytest.raises(CommandFailed) as raised:
        docker_command.must(machine, "volume", "rm", "tally_postgres-data")
    assert str(raised.value) == "docker volume rm … ended with 1: no such volume"


@pytest.mark.parametrize("user", ["root", "deploy"])
def test_a_users_environment_on_a_machine_is_left_out(tmp_path: Path, user: str) -> None:
    with support.away_from_home(), support.prepared() as sshd:
        home = sshd.folder / "home"
        configure(home)
        (home / ".bashrc").write_text("".join(
            f"export {name}={value}\n" for name, value in ELSEWHERE.items()))
        sshd.add_command("docker", SHOW)
        sshd.start()
        machine = sshd.machine(tmp_path / "known_hosts", user)
        machine.connect()
        try:
            assert ("DOCKER_HOST=" in machine.must(["env"])) is (user == "root")
            host, words, known = docker_command.must(machine, "ps").split("|")
        finally:
            machine.close()
    assert (host, words) == (docker_command.HOST, "ps")
    assert not [name for name in ELSEWHERE if f"{name}=" in known and name != "DOCKER_BUILDKIT"]


def test_a_call_that_is_made_another_way_fails_its_test(
        machine: LocalMachine, tmp_path: Path) -> None:
    docker = executable(tmp_path / "docker", SHOW)

    assert machine.run([str(docker), "ps"]).code == 97
    record = tmp_path / "docker.unpinned"
    assert record.read_text() == "docker ps\n"
    record.unlink()
