"""Run a real sshd for a test, on a loopback port, as a machine with users of its own.

It has /etc, /run, /usr/local/sbin and processes of its own: what a test changes or leaves
there is gone with it. The users are root and deploy, who has sudo.
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

from stack.host_keys import Pinned
from stack.inventory import Node, Ssh
from stack.remote import RemoteMachine
from tests.stack.executables import executable

# Not a user of this machine, as far as can be foreseen.
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
# Since 9.8 sshd shuts out addresses that fail often, and that is what tests are for.
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
    """A machine that sshd, once started, lets deploy and root into with `key`."""

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
        # sshd looks for these as the user who logs in.
        self.folder.chmod(0o755)
        os.chown(home, DEPLOY, DEPLOY)
        path = f"{commands}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        (etc / "passwd").write_text(f"root:*:0:0::{home}:/bin/bash\n"
                                    f"sshd:*:100:65534::/run/sshd:/usr/sbin/nologin\n"
                                    f"deploy:*:{DEPLOY}:{DEPLOY}::{home}:/bin/bash\n")
        (etc / "shadow").write_text("root:*:19000::::::\ndeploy:*:19000::::::\n")
        (etc / "group").write_text(f"root:x:0:\ntty:x:5:\nnogroup:x:65534:\ndeploy:x:{DEPLOY}:\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost {socket.gethostname()}\n")
        self.sudoers(SUDOERS.format(path=path))
        self._configure(CONFIG.format(port=self.port, folder=self.folder, path=path))
        self.authorize(self.key.with_suffix(".pub"))

    def sudoers(self, text: str) -> None:
        """Say who may do what, before the start."""
        (self.folder / "etc/sudoers").write_text(text)
        (self.folder / "etc/sudoers").chmod(0o440)

    def _configure(self, config: str) -> None:
        place = self.folder / "sshd_config"
        place.write_text(config + UNPUNISHED)
        known = subprocess.run(["/usr/sbin/sshd", "-T", "-f", place], capture_output=True).stderr
        if b"PerSourcePenalties" in known:
            place.write_text(config)

    def authorize(self, *public: Path) -> None:
        """Let in whoever has one of these keys, and nobody else."""
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
        """End the machine, with every process in it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def cut(self) -> None:
        """Kill sshd's end of each connection, as a machine does that loses its power."""
        assert self._process is not None
        for listener in _children(self._process.pid):
            for pid in _descendants(listener):
                if _name(pid).startswith("sshd"):
                    os.kill(pid, signal.SIGKILL)

    def add_command(self, name: str, *lines: str) -> None:
        """Put a shell script before the machine's own commands."""
        executable(self.folder / "bin" / name, *lines)

    @property
    def fingerprint(self) -> str:
        """The host key's, as the machine's owner would see it."""
        said = subprocess.run(["ssh-keygen", "-l", "-f", self.host_key], check=True,
                              capture_output=True, text=True)
        return said.stdout.split()[1]

    def ssh(self, user: str = "deploy", key: Path | None = None) -> Ssh:
        """Return what an inventory says to reach it."""
        return Ssh(user, self.port, key or self.key)

    def machine(self, known_hosts: Path, user: str = "deploy",
                host: str = "127.0.0.1") -> RemoteMachine:
        """Return the machine as it is before the first login, when it is new."""
        return RemoteMachine(Node(host, "manager"), self.ssh(user),
                             Pinned(known_hosts, accept=True))


@contextmanager
def prepared() -> Iterator[Sshd]:
    """Have an sshd that is yet to be started."""
    # pytest's own folders are closed to deploy.
    with tempfile.TemporaryDirectory(prefix="tally-sshd-") as folder:
        sshd = Sshd(Path(folder))
        try:
            yield sshd
        finally:
            sshd.stop()


@contextmanager
def away_from_home() -> Iterator[None]:
    """Let the ~/.ssh and the agent of whoever runs the tests have no say."""
    with tempfile.TemporaryDirectory(prefix="tally-home-") as home, \
            pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", home)
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        yield


@contextmanager
def running() -> Iterator[Sshd]:
    """Have an sshd that lets people in."""
    with prepared() as sshd:
        sshd.start()
        yield sshd


def keypair(path: Path, passphrase: str = "") -> Path:
    """Make a key pair and return the private key's place."""
    if not shutil.which("ssh-keygen"):
        raise RuntimeError("there is no ssh-keygen: apt-get install openssh-client")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", path],
                   check=True)
    return path


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def listens(port: int) -> bool:
    """Tell whether something takes connections on a port."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def _children(pid: int) -> list[int]:
    return [int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()]


def _descendants(pid: int) -> list[int]:
    return [each for child in _children(pid) for each in (child, *_descendants(child))]


def _name(pid: int) -> str:
    return _read(f"/proc/{pid}/comm").strip()


def _read(path: str) -> str:
    """Read what the kernel says of a process; nothing of one that has ended meanwhile."""
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
