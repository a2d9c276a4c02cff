"""Commands run the same in any login shell, whatever it prints at a login."""

import hashlib
import io
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from stack.errors import Locked
from stack.machines import clock, ssh
from stack.machines.login_shell import through_sh
from stack.machines.machine import Completed
from stack.machines.ssh import RemoteMachine
from tests.support.failing import error_of
from tests.support.sshd import Sshd, away_from_home, prepared

pytestmark = pytest.mark.service

# A shell, and what it reads at a login.
SHELLS = {"/bin/bash": ".bashrc", "/bin/dash": ".profile", "/bin/zsh": ".zshenv",
          "/usr/bin/fish": ".config/fish/config.fish", "/bin/tcsh": ".cshrc",
          "/bin/bsd-csh": ".cshrc"}
NOISE = ("echo 'Welcome! This system is monitored.'", "printf 'Checking for updates ...'",
         "sh -c 'echo node: v22 is active >&2'")
UGLY = "$HOME `id` \"two\"  'one'\nnext line; * ? [a] \\ \\\\ \\047 %s Grüße ☃ !1 !! !$ ^a^b {a} ~"
EVERY = "".join(map(chr, range(1, 128)))


@pytest.fixture(scope="module", params=SHELLS)
def sshd(request: pytest.FixtureRequest) -> Iterator[Sshd]:
    """A machine with a login shell that prints something at each login."""
    with away_from_home(), prepared() as sshd:
        sshd.login_shell(request.param)
        sshd.at_login(SHELLS[request.param], *NOISE)
        sshd.start()
        yield sshd


@pytest.fixture(scope="module")
def machine(sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteMachine]:
    machine = sshd.machine(tmp_path_factory.mktemp("pinned") / "known_hosts")
    machine.connect()
    yield machine
    machine.close()


@pytest.mark.parametrize("text", [UGLY, EVERY, "it's \\ long!\n" * 1000, "x" * 50_000],
                         ids=["ugly", "every character", "long", "one word"])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_reads_a_script_the_same(shell: str, text: str, locale: str) -> None:
    script = f"printf '%s|' {shlex.quote(text)} -n ''\nexit 7\n"
    done = subprocess.run([shell, "-c", through_sh(script)], env={"LC_ALL": locale},
                          capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (7, f"{text}|-n||".encode(), b"")


def test_only_the_commands_output_and_code_are_returned(machine: RemoteMachine) -> None:
    done = machine.run(["sh", "-c", "echo out\necho err >&2\nexit 3"])
    assert done == Completed(3, "out\n", "err\n")


def test_a_silent_command_has_no_output(machine: RemoteMachine) -> None:
    assert machine.run(["true"]) == Completed(0, "", "")


def test_arguments_and_variables_arrive_unchanged(machine: RemoteMachine) -> None:
    script = 'printf "%s|" "$UGLY" "$@"'
    done = machine.must(["sh", "-c", script, "say", EVERY, ""], env={"UGLY": UGLY})
    assert done == f"{UGLY}|{EVERY}||"


def test_bytes_are_passed_on_unchanged(machine: RemoteMachine) -> None:
    data = bytes(range(256)) * 4000
    assert machine.must(["sha256sum"], stdin=io.BytesIO(data)).split()[0] \
        == hashlib.sha256(data).hexdigest()


def test_a_command_runs_in_its_folder_and_may_time_out(
        machine: RemoteMachine, tmp_path: Path) -> None:
    assert machine.must(["pwd"], cwd=PurePosixPath(tmp_path), timeout=60) == f"{tmp_path}\n"
    assert machine.run(["sleep", "60"], timeout=0.5).code == 124


def test_files_are_written_read_and_copied(machine: RemoteMachine, tmp_path: Path) -> None:
    assert machine.write(f"{tmp_path}/file", UGLY)
    assert machine.read(f"{tmp_path}/file") == UGLY
    with machine.holding(tmp_path) as there:
        assert machine.read(f"{there}/file") == UGLY


def test_a_lock_is_held_once(machine: RemoteMachine, tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    with machine.exclusively(lock):
        assert error_of(machine.exclusively(lock).__enter__, Locked)


def test_the_clock_is_read(machine: RemoteMachine) -> None:
    assert abs(clock.offset(machine)) < clock.TOLERANCE


def test_the_tunnel_carries_only_what_the_engine_says(
        sshd: Sshd, machine: RemoteMachine) -> None:
    sshd.add_command("docker", "exec cat")
    with socket.socket(socket.AF_UNIX) as near:
        near.settimeout(20)
        near.connect(machine.docker_host.removeprefix("unix://"))
        near.sendall(bytes(range(256)))
        near.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: near.recv(1000), b"")) == bytes(range(256))


def test_a_login_that_reads_its_input_takes_none_of_a_commands(tmp_path: Path) -> None:
    with prepared() as sshd:
        sshd.at_login(".bashrc", "read -t 0.2 -r answer")
        sshd.start()
        machine = sshd.machine(tmp_path / "known_hosts")
        machine.connect()
        assert machine.must(["cat"], stdin="one\ntwo\n") == "one\ntwo\n"
        machine.close()


def refusal(sshd: Sshd, tmp_path: Path) -> str:
    sshd.start()
    return error_of(sshd.machine(tmp_path / "known_hosts").connect)


@pytest.mark.parametrize(("shell", "why"), [
    ("/usr/sbin/nologin", "This account is currently not available."),
    ("/bin/false", "it says nothing")])
def test_a_login_shell_that_runs_no_commands_is_refused(
        tmp_path: Path, shell: str, why: str) -> None:
    with prepared() as sshd:
        sshd.login_shell(shell)
        assert refusal(sshd, tmp_path) == (
            f"127.0.0.1: deploy's login shell there runs no commands ({why}): "
            "give deploy another, as root: chsh --shell /bin/bash deploy")


def test_a_login_that_never_ends_is_refused(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "LOGIN_TIMEOUT", 1.0)
    with prepared() as sshd:
        sshd.at_login(".bashrc", "sleep 60")
        assert "runs no commands (no sign of it within 1 s)" in refusal(sshd, tmp_path)


def test_the_remedy_for_sudo_that_requires_a_terminal_helps(tmp_path: Path) -> None:
    with prepared() as sshd:
        sshd.sudoers("Defaults requiretty\nroot ALL=(ALL) ALL\ndeploy ALL=(ALL) NOPASSWD: ALL\n"
                     "@includedir /etc/sudoers.d\n")
        said = refusal(sshd, tmp_path)
        assert said == (
            "127.0.0.1: deploy can't become root there (sudo: sorry, you must have a tty to run "
            "sudo): write Defaults:deploy !requiretty, with: ssh -t -p "
            f"{sshd.port} deploy@127.0.0.1 sudo visudo -f /etc/sudoers.d/tally")
        found = re.search("write (Defaults.*), with.* -f (.*)", said)
        assert found
        root = sshd.machine(tmp_path / "known_hosts", "root")
        root.connect()
        root.write(found[2], f"{found[1]}\n", "0440")
        root.close()
        machine = sshd.machine(tmp_path / "known_hosts")
        machine.connect()
        machine.close()
