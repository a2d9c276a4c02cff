"""Reach a machine over SSH: one connection, kept for the whole run, every command as root."""

import shlex
import socket
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath
from typing import IO

from paramiko import Channel, ChannelException

from stack.errors import OperatorError, Refused
from stack.inventory import Host, Ssh
from stack.machines import docker_command, ssh_config
from stack.machines.host_keys import Pinned
from stack.machines.login import Login, LoginFailed, log_in
from stack.machines.login_shell import BEGIN, framed
from stack.machines.machine import CommandFailed, Completed, Input, Machine, taken
from stack.machines.ssh_config import SshConfig
from stack.machines.tunnel import CHUNK, LOST, Tunnel, end_input

CONNECT_TIMEOUT = 10.0
# A machine that lost power sends nothing: after this long without an answer, it is lost.
SILENCE = 15.0
KEEPALIVE = 5
# sshd allows ten sessions per connection (MaxSessions); a refused one is retried for this long.
PATIENCE = 20.0
# A login shell may take this long before it runs a command.
LOGIN_TIMEOUT = 60.0
# RFC 5482; only Linux has it. Elsewhere the system's own timeout applies, which is minutes.
USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)


# Also removes what killed commands left behind more than two hours ago.
UNPACK = """
set -eu
find /var/tmp -maxdepth 1 -name 'tally-files.*' -mmin +120 -exec rm -rf {} +
folder=$(mktemp --directory /var/tmp/tally-files.XXXXXX)
tar --extract --no-overwrite-dir --directory "$folder"
echo "$folder"
"""
# Ends when its input closes or stays silent: a laptop that sleeps or loses its network closes
# nothing.
HOLD = ('exec 9> "$1" || exit 1; flock --nonblock 9 || exit 9; echo held; '
        'while read -r -t 30 _; do :; done')
SIGN_OF_LIFE = 5.0


class Gone(OperatorError):
    """The connection to a machine ended in the middle of a command."""


class RemoteMachine(Machine):
    """A machine of the inventory, behind SSH."""

    def __init__(self, host: Host, ssh: Ssh, pinned: Pinned) -> None:
        self._name = host.host
        self._ssh, self._pinned = ssh, pinned
        self._login: Login | None = None
        self._tunnel: Tunnel | None = None
        self._opening = threading.Lock()
        # paramiko keeps one error for all threads: if several sessions are refused at once,
        # all but one would look like a lost connection.
        self._opening_session = threading.Lock()

    @cached_property
    def _route(self) -> tuple[SshConfig, ...]:
        return ssh_config.route(self._name, self._ssh)

    @property
    def _there(self) -> SshConfig:
        return self._route[-1]

    @property
    def name(self) -> str:
        return self._name

    @property
    def address(self) -> str:
        """The host to connect to, according to ssh's config."""
        return self._there.hostname

    @property
    def port(self) -> int:
        return self._there.port

    @property
    def user(self) -> str:
        return self._there.user

    @property
    def is_known(self) -> bool:
        """Whether its host key is pinned, and those of the jump hosts before it."""
        return all(self._pinned.knows(*host.pinned_as) for host in self._route)

    @property
    def alive(self) -> bool:
        return self._login is not None and self._login.transport.is_active()

    @property
    def docker_host(self) -> str:
        with self._opening:
            self._tunnel = self._tunnel or Tunnel(self.dial)
            return self._tunnel.host

    def connect(self, patience: float = 0) -> None:
        """Log in, and check that sudo needs no password; raises Refused with what was tried.

        `patience` is how many seconds a booting machine may take to answer.
        """
        if self._ssh.key and not self._ssh.key.exists():
            raise Refused(f"{self.name}: there is no key {self._ssh.key}",
                          "name yours in the inventory, ssh.key")
        ssh_config.tell_unread(self._route)
        try:
            self._login = self._log_in(time.monotonic() + patience)
        except LoginFailed as error:
            raise Refused(f"{self.name}: {error}", error.remedy) from error
        self._tune(self._login)
        self._require_root()

    def _log_in(self, deadline: float) -> Login:
        while True:
            try:
                return log_in(self._route, self._ssh.key, self._pinned, CONNECT_TIMEOUT)
            except LoginFailed as error:
                if not error.unanswered or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def _tune(self, login: Login) -> None:
        for connection in login.connections:
            connection.set_keepalive(KEEPALIVE)
            way = connection.sock
            if isinstance(way, socket.socket) and way.family != socket.AF_UNIX:
                # Each small request waits for its answer: the kernel would delay many by 40 ms.
                way.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if USER_TIMEOUT is not None:
                    way.setsockopt(socket.IPPROTO_TCP, USER_TIMEOUT, int(SILENCE * 1000))

    def _require_root(self) -> None:
        done = self.run(["true"])
        if not done.ok:
            remedy = f"let {self.user} run sudo without a password, as cloud-init's user may"
            if "tty" in done.last_line.lower():
                remedy = (f"write Defaults:{self.user} !requiretty, with: ssh -t "
                          f"{self._there.target} sudo visudo -f /etc/sudoers.d/tally")
            raise Refused(f"{self.name}: {self.user} can't become root there ({done.last_line})",
                          remedy)

    def ssh_command(self, terminal: bool) -> list[str]:
        """Return the ssh command that logs in there, with the same key and pinned host keys."""
        options = ["-t" if terminal else "-T", "-l", self.user]
        if self._ssh.port:
            options += ["-p", str(self._ssh.port)]
        if self._ssh.key:
            options += ["-i", str(self._ssh.key), "-oIdentitiesOnly=yes"]
        return ["ssh", *ssh_config.pinning_options(self._route, self._pinned.path), *options,
                self.name]

    def close(self) -> None:
        """Close the connection; whatever waits for it ends too."""
        if self._tunnel:
            self._tunnel.close()
            self._tunnel = None
        if self._login:
            self._login.close()

    def dial(self) -> Channel:
        """Open a channel to the Engine's API."""
        return self._start("docker", shlex.join(
            docker_command.words(self, "system", "dial-stdio")), reads=True)

    def run(self, command: Sequence[str], *, stdin: Input = None,
            env: Mapping[str, str] | None = None, cwd: PurePath | None = None,
            timeout: float | None = None) -> Completed:
        done = self._exchange(_line(command, env, cwd, timeout), stdin, command)
        if timeout is not None and done.code == 124:
            return Completed(124, done.stdout, f"no answer within {timeout:.0f} s")
        return done

    def pass_through(self, command: Sequence[str], stdin: IO[bytes], stdout: IO[bytes],
                     stderr: IO[bytes]) -> int:
        """Run a command on these files, as its input and output come, and return its code.

        `stdin` gives what there is, without a buffer.
        """
        channel = self._start(command[0], _line(command, None, None, None), reads=True)
        complaining = threading.Thread(target=_pass_errors, args=(channel, stderr), daemon=True)
        complaining.start()
        threading.Thread(target=_feed, args=(channel, stdin), daemon=True).start()
        for data in self._output(channel, command[0]):
            stdout.write(data)
            stdout.flush()
        complaining.join()
        # Nobody reads it any more, but the frame waits for its end.
        with suppress(*LOST):
            end_input(channel)
        code = self._code(channel, command)
        _close(channel)
        return code

    @contextmanager
    def holding(self, folder: Path) -> Iterator[PurePath]:
        with tempfile.TemporaryFile() as archive:
            with tarfile.open(fileobj=archive, mode="w") as tar:
                tar.add(folder, arcname=".")
            archive.seek(0)
            there = self.must(["sh", "-c", UNPACK], stdin=archive).strip()
        try:
            yield PurePosixPath(there)
        finally:
            with suppress(Gone):
                self.run(["rm", "-rf", there])

    @contextmanager
    def exclusively(self, lock: str) -> Iterator[None]:
        channel = self._start("flock", shlex.join(["bash", "-c", HOLD, "hold", lock]),
                              reads=True)
        if not next(self._output(channel, "flock"), b""):
            _feed(channel, "")
            code = self._code(channel, ["flock"])
            raise taken(self.name) if code == 9 else CommandFailed(
                ["flock", lock], Completed(code, "", f"{lock} can't be locked"))
        done = threading.Event()
        threading.Thread(target=_breathe, args=(channel, done), daemon=True).start()
        try:
            yield
        finally:
            _close(channel)

    def _exchange(self, line: str, stdin: Input, command: Sequence[str]) -> Completed:
        channel = self._start(command[0], line, reads=stdin is not None)
        err = bytearray()
        collecting = threading.Thread(target=_collect, args=(channel, err), daemon=True)
        collecting.start()
        if stdin is not None:
            threading.Thread(target=_feed, args=(channel, stdin), daemon=True).start()
        out = b"".join(self._output(channel, command[0]))
        code = self._code(channel, command)
        collecting.join()
        _close(channel)
        return Completed(code, out.decode(errors="replace"),
                         err.partition(BEGIN)[2].decode(errors="replace"))

    def _start(self, what: str, line: str, *, reads: bool) -> Channel:
        """Start a command as root; `reads` says whether it gets any input."""
        channel = self._channel(what)
        try:
            channel.exec_command(framed(line if self.user == "root" else f"sudo -n -- {line}"))
            if not reads:
                end_input(channel)
            self._skip_login(channel, what)
        except LOST as error:
            raise self.gone(what) from error
        return channel

    def _skip_login(self, channel: Channel, what: str) -> None:
        """Read what a login prints before the command begins; raises Refused if it never does."""
        said = bytearray()
        channel.settimeout(LOGIN_TIMEOUT)
        try:
            while not said.endswith(BEGIN):
                # Not more: the rest is the command's.
                if not (byte := channel.recv(1)):
                    self._code(channel, [what])
                    said += b"\n" + channel.recv_stderr(CHUNK)
                    raise self._runs_nothing(said.decode(errors="replace"))
                said += byte
        except TimeoutError as error:
            _close(channel)
            raise self._runs_nothing(f"no sign of it within {LOGIN_TIMEOUT:.0f} s") from error
        channel.settimeout(None)

    def _runs_nothing(self, said: str) -> Refused:
        why = Completed(1, "", said).last_line or "it says nothing"
        return Refused(f"{self.name}: {self.user}'s login shell there runs no commands ({why})",
                       f"give {self.user} another, as root: chsh --shell /bin/bash {self.user}")

    def _output(self, channel: Channel, what: str) -> Iterator[bytes]:
        """Read what a command prints, as it comes; raises Gone if the connection ends."""
        try:
            while data := channel.recv(CHUNK):
                yield data
        except LOST as error:
            raise self.gone(what) from error

    def _code(self, channel: Channel, command: Sequence[str]) -> int:
        code = int(channel.recv_exit_status())
        if code < 0:
            raise self.gone(command[0])
        return code

    def gone(self, what: str) -> Gone:
        """Close the connection and return the error for it."""
        if self._login:
            self._login.close()
        return Gone(f"lost contact with {self.name} while running {what}",
                    "when it is back, run the same command again")

    def _channel(self, what: str) -> Channel:
        deadline = time.monotonic() + PATIENCE
        while True:
            if not self._login or not self.alive:
                raise self.gone(what)
            try:
                with self._opening_session:
                    return self._login.transport.open_session(timeout=CONNECT_TIMEOUT)
            except ChannelException as error:
                if time.monotonic() > deadline:
                    raise Refused(f"{self.name}: sshd refuses more sessions",
                                  "see MaxSessions in its sshd_config(5)") from error
                time.sleep(0.2)
            except LOST as error:
                raise self.gone(what) from error


def _line(command: Sequence[str], env: Mapping[str, str] | None, cwd: PurePath | None,
          timeout: float | None) -> str:
    """Return the shell line that runs a command there as run() promises."""
    # Always through env(1): sudo has its own exit code for a command that doesn't exist.
    words = ["env", *(f"{name}={value}" for name, value in (env or {}).items()), *command]
    if cwd is not None:
        words = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "in", str(cwd), *words]
    if timeout is not None:
        words = ["timeout", "--kill-after=5", f"{timeout:g}", *words]
    return shlex.join(words)


def _breathe(channel: Channel, done: threading.Event) -> None:
    """Send a line every few seconds until `done` is set or the connection ends."""
    with suppress(*LOST):
        while not done.wait(SIGN_OF_LIFE):
            channel.sendall(b"\n")


def _feed(channel: Channel, stdin: str | IO[bytes]) -> None:
    with suppress(*LOST):
        if isinstance(stdin, str):
            channel.sendall(stdin.encode())
        else:
            _pump(stdin, channel)
        end_input(channel)


def _pump(source: IO[bytes], channel: Channel) -> None:
    # A command may end without reading all of its input.
    while not channel.eof_received and (data := source.read(CHUNK)):
        channel.sendall(data)


def _collect(channel: Channel, into: bytearray) -> None:
    # The reader of stdout reports a lost connection.
    with suppress(*LOST):
        while data := channel.recv_stderr(CHUNK):
            into += data


def _pass_errors(channel: Channel, into: IO[bytes]) -> None:
    said = b""
    with suppress(*LOST):
        while BEGIN not in said and (data := channel.recv_stderr(CHUNK)):
            said += data
        into.write(said.partition(BEGIN)[2])
        into.flush()
        while data := channel.recv_stderr(CHUNK):
            into.write(data)
            into.flush()


def _close(channel: Channel) -> None:
    with suppress(*LOST):
        channel.close()
