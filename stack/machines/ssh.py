"""Reach a machine over SSH: one connection, kept for the whole run, every command as root."""

import logging
import shlex
import socket
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath, PurePosixPath
from typing import IO

from fabric import Config, Connection
from paramiko import AuthenticationException, BadHostKeyException, Channel, ChannelException
from paramiko.ssh_exception import NoValidConnectionsError, PasswordRequiredException

from stack.errors import OperatorError, Refused
from stack.inventory import Host, Ssh
from stack.machines import docker_command
from stack.machines.host_keys import Pinned, described, failed_at
from stack.machines.login_shell import BEGIN, framed
from stack.machines.machine import CommandFailed, Completed, Input, Machine, taken
from stack.machines.tunnel import CHUNK, LOST, Tunnel, end_input

USER = "deploy"  # The one that cloud-init makes.
CONNECT_TIMEOUT = 10.0
# What paramiko says when it has no key to try, and when the server accepts but stays silent.
NO_KEY, UNANSWERED = "No authentication methods available", "No existing session"
# Errors are raised and reported with messages of our own.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
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
        self._connection = self._prepare()
        self._tunnel: Tunnel | None = None
        self._opening = threading.Lock()
        # paramiko keeps one error for all threads: if several sessions are refused at once,
        # all but one would look like a lost connection.
        self._opening_session = threading.Lock()

    def _prepare(self) -> Connection:
        # The inventory comes first, then ssh's config, then our defaults, as with ssh itself.
        config = Config(overrides={"user": USER})
        keys = {"key_filename": [str(self._ssh.key)]} if self._ssh.key else {}
        return Connection(self._name, user=self._ssh.user, port=self._ssh.port, config=config,
                          connect_timeout=int(CONNECT_TIMEOUT),
                          connect_kwargs={**keys, "banner_timeout": 30, "auth_timeout": 30})

    @property
    def name(self) -> str:
        return self._name

    @property
    def address(self) -> str:
        """The host to connect to, according to ssh's config."""
        return str(self._connection.host)

    @property
    def port(self) -> int:
        return int(self._connection.port)

    @property
    def user(self) -> str:
        return str(self._connection.user)

    @property
    def alive(self) -> bool:
        return bool(self._connection.is_connected)

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
        try:
            self._open(time.monotonic() + patience)
        except BadHostKeyException as error:
            raise Refused(
                f"{self.name}: its host key has changed from {described(error.expected_key)} to "
                f"{described(error.key)}, so this may be another machine",
                f"if it was rebuilt: {self._forget()}; else find out who answers there"
            ) from error
        except LOST as error:
            raise Refused(f"{self.name}: {_tried(self._connection, error)}",
                          f"try: ssh {self._target()}") from error
        self._tune()
        self._require_root()

    def _open(self, deadline: float) -> None:
        while True:
            self._connection = self._prepare()
            self._pinned.guard(self._connection)
            try:
                self._connection.open()
                return
            except (NoValidConnectionsError, TimeoutError, ChannelException, EOFError,
                    ConnectionResetError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def _forget(self) -> str:
        """Return the command that removes the changed host key from known_hosts."""
        path = shlex.quote(str(self._pinned.path))
        return f"ssh-keygen -R '{failed_at(self._connection)}' -f {path}"

    def _tune(self) -> None:
        transport = self._connection.transport
        transport.set_keepalive(KEEPALIVE)
        if isinstance(transport.sock, socket.socket):
            # Each small request waits for its answer: the kernel would delay many by 40 ms.
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if USER_TIMEOUT is not None:
                transport.sock.setsockopt(socket.IPPROTO_TCP, USER_TIMEOUT, int(SILENCE * 1000))

    def _require_root(self) -> None:
        done = self.run(["true"])
        if not done.ok:
            remedy = f"let {self.user} run sudo without a password, as cloud-init's user may"
            if "tty" in done.last_line.lower():
                remedy = (f"write Defaults:{self.user} !requiretty, with: ssh -t {self._target()} "
                          "sudo visudo -f /etc/sudoers.d/tally")
            raise Refused(f"{self.name}: {self.user} can't become root there ({done.last_line})",
                          remedy)

    def _target(self) -> str:
        """Return what ssh calls the login there."""
        return f"-p {self.port} {self.user}@{self.address}"

    def ssh_command(self, terminal: bool) -> list[str]:
        """Return the ssh command that logs in there, with the same key and pinned host keys."""
        chosen = {"-l": self._ssh.user or self.user, "-p": self._ssh.port, "-i": self._ssh.key}
        options = [str(word) for option, value in chosen.items() if value
                   for word in (option, value)]
        return ["ssh", "-t" if terminal else "-T", f"-oUserKnownHostsFile={self._pinned.path}",
                "-oStrictHostKeyChecking=yes", *options, self.name]

    def close(self) -> None:
        """Close the connection; whatever waits for it ends too."""
        if self._tunnel:
            self._tunnel.close()
            self._tunnel = None
        self._connection.close()

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
        self._connection.close()
        return Gone(f"lost contact with {self.name} while running {what}",
                    "when it is back, run the same command again")

    def _channel(self, what: str) -> Channel:
        deadline = time.monotonic() + PATIENCE
        while True:
            if not self.alive:
                raise self.gone(what)
            try:
                with self._opening_session:
                    channel: Channel = self._connection.transport.open_session(
                        timeout=CONNECT_TIMEOUT)
                return channel
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


def _close(channel: Channel) -> None:
    with suppress(*LOST):
        channel.close()


def _tried(connection: Connection, error: Exception) -> str:
    """Say in one line what was tried and why it failed."""
    where = f"{connection.user}@{connection.host}:{connection.port}"
    if isinstance(error, PasswordRequiredException):
        return f"the key for {where} has a passphrase: ssh-add it first"
    if isinstance(error, AuthenticationException) or str(error) == NO_KEY:
        return f"{where} takes none of the keys from the inventory, the agent and ~/.ssh"
    if isinstance(error, NoValidConnectionsError):
        error = next(iter(error.errors.values()))
    if isinstance(error, TimeoutError) or str(error) == UNANSWERED:
        return f"no answer from {where} within {CONNECT_TIMEOUT:.0f} s"
    if isinstance(error, socket.gaierror):
        return f"there is no address for the name {connection.host}"
    return f"no connection to {where} ({getattr(error, 'strerror', None) or error})"
