"""Run a real sshd for a test, on a loopback port, like a machine with its own users.

It has its own /etc, /run, /usr/local/sbin and processes, so whatever a test changes there is
gone with it. The users are root and deploy, who has sudo.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stack.inventory import Host, Ssh
from stack.machines.host_keys import Pinned
from stack.machines.ssh import RemoteMachine
from tests.support.executables import executable, require_pinned
from tests.support.ports import free_port

# An ID that this machine's users are unlikely to have.
DEPLOY = 64321
SUDOERS = """\
Defaults secure_path="{path}"
root ALL=(ALL) ALL
deploy ALL=(ALL) NOPASSWD: ALL
"""
CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
SetEnv PATH={path}
"""
# Since 9.8, sshd blocks addresses with many failed logins, which tests have.
UNPUNISHED = "PerSourcePenalties no\n"
START = """
set -eu
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /usr/local/sbin
mkdir /run/sshd /run/work
cp -a "$1/etc" /run/etc
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work overlay /etc
exec /usr/sbin/sshd -D -e -f "$1/sshd_config"
"""


class Sshd:
    """A machine whose users deploy and root can log in with `key` once sshd is started."""

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0:
            raise RuntimeError("a machine of its own takes root: sudo ./fab test.unit")
        self.folder = folder
        self.port = free_port()
        self.key = keypair(folder / "id_ed25519")
        self.host_key = keypair(folder / "host_key")
        self._process: subprocess.Popen[bytes] | None = None
        self._write()

    def _write(self) -> None:
        commands, home, etc = (self.folder / name for name in ("bin", "home", "etc"))
        for made in (commands, home, etc):
            made.mkdir()
        # sshd reads these as the user who logs in.
        self.folder.chmod(0o755)
        os.chown(home, DEPLOY, DEPLOY)
        path = f"{commands}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.login_shell("/bin/bash")
        (etc / "shadow").write_text("root:*:19000::::::\ndeploy:*:19000::::::\n")
        (etc / "group").write_text(f"root:x:0:\ntty:x:5:\nnogroup:x:65534:\ndeploy:x:{DEPLOY}:\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost {socket.gethostname()}\n")
        self.sudoers(SUDOERS.format(path=path))
        self._configure(CONFIG.format(port=self.port, folder=self.folder, path=path))
        self.authorize(self.key.with_suffix(".pub"))

    def login_shell(self, program: str) -> None:
        """Give both users this shell, before the start."""
        home = self.folder / "home"
        (self.folder / "etc/passwd").write_text(
            f"root:*:0:0::{home}:{program}\n"
            "sshd:*:100:65534::/run/sshd:/usr/sbin/nologin\n"
            f"deploy:*:{DEPLOY}:{DEPLOY}::{home}:{program}\n")

    def at_login(self, file: str, *lines: str) -> None:
        """Add lines to what a shell reads at a login, a file in the users' home."""
        place = self.folder / "home" / file
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("a") as opened:
            opened.writelines(f"{line}\n" for line in lines)

    def sudoers(self, text: str) -> None:
        """Write the sudoers file, before the start."""
        (self.folder / "etc/sudoers").write_text(text)
        (self.folder / "etc/sudoers").chmod(0o440)

    def _configure(self, config: str) -> None:
        place = self.folder / "sshd_config"
        place.write_text(config + UNPUNISHED)
        known = subprocess.run(["/usr/sbin/sshd", "-T", "-f", place], capture_output=True).stderr
        if b"PerSourcePenalties" in known:
            place.write_text(config)

    def authorize(self, *public: Path) -> None:
        """Admit only these keys."""
        place = self.folder / "authorized_keys"
        place.write_text("".join(key.read_text() for key in public))
        place.chmod(0o644)

    def start(self) -> None:
        """Start sshd and wait until it listens."""
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child",
                 "sh", "-c", START, "start", str(self.folder)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while not listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop the machine, with all of its processes."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def cut(self) -> None:
        """Kill sshd's end of each connection, as when a machine loses power."""
        assert self._process is not None
        for listener in _children(self._process.pid):
            for pid in _descendants(listener):
                if _name(pid).startswith("sshd"):
                    os.kill(pid, signal.SIGKILL)

    def add_command(self, name: str, *lines: str) -> None:
        """Add a shell script that hides the machine's own command."""
        executable(self.folder / "bin" / name, *lines)

    @property
    def fingerprint(self) -> str:
        """The host key's fingerprint, as ssh-keygen shows it."""
        said = subprocess.run(["ssh-keygen", "-l", "-f", self.host_key], check=True,
                              capture_output=True, text=True)
        return said.stdout.split()[1]

    def ssh(self, user: str = "deploy", key: Path | None = None) -> Ssh:
        """Return the settings of an inventory that reaches it."""
        return Ssh(user, self.port, key or self.key)

    def machine(self, known_hosts: Path, user: str = "deploy",
                host: str = "127.0.0.1") -> RemoteMachine:
        """Return the machine before its first login; its host key is accepted."""
        return RemoteMachine(Host(host, "manager"), self.ssh(user),
                             Pinned(known_hosts, accept=True))


@contextmanager
def prepared() -> Iterator[Sshd]:
    """Yield an sshd that isn't started yet."""
    # deploy can't read pytest's own folders.
    with tempfile.TemporaryDirectory(prefix="tally-sshd-") as folder:
        sshd = Sshd(Path(folder))
        try:
            yield sshd
        finally:
            sshd.stop()
        require_pinned(sshd.folder)


@contextmanager
def away_from_home() -> Iterator[None]:
    """Hide the ~/.ssh and the agent of the person who runs the tests."""
    with tempfile.TemporaryDirectory(prefix="tally-home-") as home, \
            pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", home)
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        yield


@contextmanager
def running() -> Iterator[Sshd]:
    """Yield a running sshd."""
    with prepared() as sshd:
        sshd.start()
        yield sshd


def keypair(path: Path, passphrase: str = "") -> Path:
    """Make a key pair and return the private key's path."""
    if not shutil.which("ssh-keygen"):
        raise RuntimeError("there is no ssh-keygen: apt-get install openssh-client")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", path],
                   check=True)
    return path


def listens(port: int) -> bool:
    """Return whether something listens on a port."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def _children(pid: int) -> list[int]:
    return [int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()]


def _descendants(pid: int) -> list[int]:
    return [each for child in _children(pid) for each in (child, *_descendants(child))]


def _name(pid: int) -> str:
    return _read(f"/proc/{pid}/comm").strip()


def _read(path: str) -> str:
    """Read a file in /proc about a process; return "" if the process has ended."""
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
