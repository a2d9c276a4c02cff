"""A trusted host key is pinned, and any other key is refused from then on."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stack.inventory import Host, Ssh
from stack.inventory.settings import ROOT
from stack.machines.host_keys import Pinned
from stack.machines.ssh import RemoteMachine
from tests.support.failing import error_of
from tests.support.sshd import Sshd, away_from_home, keypair, running

pytestmark = pytest.mark.service

# Logs in like an operator who is asked to trust the key.
LOG_IN = """
import sys
from pathlib import Path
from stack import commands
from stack.errors import Refused
from stack.machines.host_keys import Pinned
from stack.inventory import Host, Ssh
from stack.machines.ssh import RemoteMachine

known, port, key = sys.argv[1:]
machine = RemoteMachine(Host("127.0.0.1", "manager"), Ssh("deploy", int(port), Path(key)),
                        Pinned(Path(known)))
try:
    machine.connect()
    print("in")
except Refused as error:
    print(error)
"""


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with away_from_home(), running() as sshd:
        yield sshd


@pytest.fixture
def known_hosts(tmp_path: Path) -> Path:
    return tmp_path / "a folder" / "known_hosts"


@pytest.fixture(autouse=True)
def folder(known_hosts: Path) -> None:
    known_hosts.parent.mkdir()


def log_in(sshd: Sshd, known_hosts: Path, accept: bool = False) -> None:
    machine = RemoteMachine(Host("127.0.0.1", "manager"), sshd.ssh(), Pinned(known_hosts, accept))
    machine.connect()
    machine.close()


def pin_another_key(port: int, known_hosts: Path) -> None:
    """Write a key to the file that isn't the machine's."""
    public = keypair(known_hosts.with_name("other")).with_suffix(".pub").read_text()
    with known_hosts.open("a") as file:
        file.write(f"[127.0.0.1]:{port} {public}")


def test_an_unknown_key_is_refused_with_its_fingerprint(sshd: Sshd, known_hosts: Path) -> None:
    assert error_of(lambda: log_in(sshd, known_hosts)) == (
        f"[127.0.0.1]:{sshd.port}: its host key ssh-ed25519 {sshd.fingerprint} isn't known here: "
        "compare it with the machine's own; then answer y on a terminal, or say "
        "--accept-new-host-keys")
    assert not known_hosts.exists()


def test_a_trusted_key_is_known_from_then_on(sshd: Sshd, known_hosts: Path) -> None:
    pinned = Pinned(known_hosts)
    assert not pinned.knows("127.0.0.1", sshd.port)
    log_in(sshd, known_hosts, accept=True)
    assert pinned.knows("127.0.0.1", sshd.port)
    assert not pinned.knows("127.0.0.1", 22)
    log_in(sshd, known_hosts)


def test_a_key_on_port_22_is_pinned_without_the_port(known_hosts: Path) -> None:
    public = keypair(known_hosts.with_name("key")).with_suffix(".pub").read_text()
    known_hosts.write_text(f"192.0.2.1 {public}")
    assert [Pinned(known_hosts).knows("192.0.2.1", port) for port in (22, 2222)] == [True, False]


def test_openssh_accepts_a_pinned_key(sshd: Sshd, known_hosts: Path) -> None:
    log_in(sshd, known_hosts, accept=True)
    done = subprocess.run(
        ["ssh", "-F", "none", "-p", str(sshd.port), "-i", sshd.key, "-oBatchMode=yes",
         "-oStrictHostKeyChecking=yes", "-oGlobalKnownHostsFile=none",
         f'-oUserKnownHostsFile="{known_hosts}"', "deploy@127.0.0.1", "echo in"],
        capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("in\n", "", 0)


@pytest.mark.parametrize("accept", [False, True])
def test_a_changed_key_is_refused_even_if_new_ones_are_trusted(
        sshd: Sshd, known_hosts: Path, accept: bool) -> None:
    pin_another_key(sshd.port, known_hosts)
    before = known_hosts.read_text()
    line = error_of(lambda: log_in(sshd, known_hosts, accept))
    assert re.fullmatch(
        r"127\.0\.0\.1: its host key has changed from ssh-ed25519 SHA256:\S+ to ssh-ed25519 "
        f"{re.escape(sshd.fingerprint)}, so this may be another machine: if it was rebuilt: "
        r"ssh-keygen -R .*; else find out who answers there", line)
    assert known_hosts.read_text() == before


def test_the_suggested_command_for_a_changed_key_works(
        sshd: Sshd, known_hosts: Path) -> None:
    pin_another_key(sshd.port, known_hosts)
    forget(error_of(lambda: log_in(sshd, known_hosts)))
    log_in(sshd, known_hosts, accept=True)


def forget(line: str) -> None:
    """Run the command that an error suggests."""
    found = re.search(r"ssh-keygen -R .*(?=; else)", line)
    assert found
    subprocess.run(["sh", "-c", found[0]], check=True, capture_output=True)


@pytest.fixture
def behind(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """A jump host: in the operator's ~/.ssh/config, `far` is the machine behind it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    with running() as jump:
        (tmp_path / ".ssh/config").write_text("".join(
            f"Host {name}\n  HostName 127.0.0.1\n  Port {at.port}\n  User root\n"
            f"  IdentityFile {at.key}\n" for name, at in (("jump", jump), ("far", sshd)))
            + "  ProxyJump jump\n")
        yield jump


def far(pinned: Pinned) -> RemoteMachine:
    return RemoteMachine(Host("far", "manager"), Ssh(), pinned)


def test_an_unknown_jump_host_is_refused(behind: Sshd, known_hosts: Path) -> None:
    assert error_of(far(Pinned(known_hosts)).connect).startswith(
        f"[127.0.0.1]:{behind.port}: its host key ssh-ed25519 {behind.fingerprint} isn't known")


def test_a_jump_hosts_changed_key_is_refused_and_its_remedy_works(
        sshd: Sshd, behind: Sshd, known_hosts: Path) -> None:
    log_in(sshd, known_hosts, accept=True)
    pin_another_key(behind.port, known_hosts)
    line = error_of(far(Pinned(known_hosts)).connect)
    assert f"to ssh-ed25519 {behind.fingerprint}," in line
    forget(line)
    machine = far(Pinned(known_hosts, accept=True))
    machine.connect()
    machine.close()


def test_machines_that_share_a_jump_host_pin_it_once(
        sshd: Sshd, behind: Sshd, known_hosts: Path) -> None:
    pinned = Pinned(known_hosts, accept=True)
    machines = [far(pinned) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(RemoteMachine.connect, machines))
    for machine in machines:
        machine.close()
    assert sorted(line.split()[0] for line in known_hosts.read_text().splitlines()) \
        == sorted(f"[127.0.0.1]:{at.port}" for at in (sshd, behind))


def on_a_terminal(sshd: Sshd, known_hosts: Path, answer: str) -> str:
    """Log in on a terminal, answer the question, and return everything that was shown."""
    near, far = pty.openpty()
    with subprocess.Popen(
            [sys.executable, "-c", LOG_IN, str(known_hosts), str(sshd.port), str(sshd.key)],
            cwd=ROOT, stdin=far, stdout=far, stderr=far,
            env={**os.environ, "TERM": "xterm"}) as process:
        os.close(far)
        shown = b""
        try:
            while data := os.read(near, 4096):
                if b"[y/N]" in data and b"[y/N]" not in shown:
                    os.write(near, f"{answer}\n".encode())
                shown += data
        except OSError:
            # How Linux reports that the other end of a terminal is closed.
            assert process.wait() == 0
    os.close(near)
    return shown.decode()


def test_a_person_is_asked_and_may_trust_the_key(sshd: Sshd, known_hosts: Path) -> None:
    shown = on_a_terminal(sshd, known_hosts, "y")
    assert (f"[127.0.0.1]:{sshd.port} is new here; its host key is ssh-ed25519 "
            f"{sshd.fingerprint}. Trust it? [y/N]") in shown
    assert shown.endswith("in\r\n")
    log_in(sshd, known_hosts)


@pytest.mark.parametrize("answer", ["", "n"])
def test_anything_but_yes_trusts_no_key(
        sshd: Sshd, known_hosts: Path, answer: str) -> None:
    assert "isn't known here" in on_a_terminal(sshd, known_hosts, answer)
    assert not known_hosts.exists()
