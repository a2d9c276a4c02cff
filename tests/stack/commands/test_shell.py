"""What a command in a container prints is passed on, and nothing else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.inventory.settings import ROOT
from tests.support.sshd import Sshd, away_from_home, prepared

pytestmark = pytest.mark.service

# Runs a command in the container web, as ./fab exec does when it has found it.
ENTER = """
import sys
from pathlib import Path
from stack import commands
from stack.commands.shell import enter
from stack.inventory import Host, Ssh
from stack.machines.host_keys import Pinned
from stack.machines.ssh import RemoteMachine
from stack.swarm.fleet import Member

known, port, key, command = sys.argv[1:]
host = Host("127.0.0.1", "manager")
machine = RemoteMachine(host, Ssh("deploy", int(port), Path(key)), Pinned(Path(known), True))
machine.connect()
enter(Member(host, machine), "web", command, terminal=False)
"""
# The docker command there: runs what it should run in the container.
DOCKER = ('while [ "$1" != exec ]; do shift; done',
          '[ "$2 $3" = "--interactive web" ] || exit 9', "shift 3", 'exec "$@"')


@pytest.fixture(scope="module", params=["/bin/bash", "/usr/bin/fish"])
def noisy(request: pytest.FixtureRequest) -> Iterator[Sshd]:
    """A machine whose logins print something on stdout and on stderr."""
    with away_from_home(), prepared() as sshd:
        file = {"/bin/bash": ".bashrc", "/usr/bin/fish": ".config/fish/config.fish"}
        sshd.login_shell(request.param)
        sshd.at_login(file[request.param], "echo Welcome!", "sh -c 'echo node: v22 >&2'")
        sshd.add_command("docker", *DOCKER)
        sshd.start()
        yield sshd


def entered(sshd: Sshd, tmp_path: Path, command: str) -> list[str]:
    return [sys.executable, "-c", ENTER, str(tmp_path / "known_hosts"), str(sshd.port),
            str(sshd.key), command]


def run(sshd: Sshd, tmp_path: Path, command: str, stdin: bytes = b""
        ) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(entered(sshd, tmp_path, command), cwd=ROOT, input=stdin,
                          capture_output=True, timeout=60)


def test_only_the_commands_output_and_code_are_passed_on(noisy: Sshd, tmp_path: Path) -> None:
    done = run(noisy, tmp_path, "sh -c 'echo out; echo err >&2; exit 7'")
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)


def test_input_reaches_the_command_as_it_is(noisy: Sshd, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4000
    done = run(noisy, tmp_path, "cat", data)
    assert (done.stdout, done.stderr, done.returncode) == (data, b"", 0)


def test_a_conversation_is_passed_on_as_it_comes(noisy: Sshd, tmp_path: Path) -> None:
    with subprocess.Popen(entered(noisy, tmp_path, "sh -c 'read a; echo $a; read b; echo $b'"),
                          cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        for line in (b"one\n", b"two\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline() == line
        # The input stays open, but nobody reads it any more.
        assert process.wait(20) == 0


def test_an_open_input_that_nobody_reads_keeps_nothing_waiting(
        noisy: Sshd, tmp_path: Path) -> None:
    near, far = os.pipe()
    done = subprocess.run(entered(noisy, tmp_path, "echo in"), cwd=ROOT, stdin=near,
                          capture_output=True, timeout=60)
    os.close(near)
    os.close(far)
    assert (done.stdout, done.returncode) == (b"in\n", 0)
