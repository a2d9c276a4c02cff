"""Log in over SSH, through the jump hosts on the way, each as ssh's configuration says."""

import logging
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO

from paramiko import (
    BadAuthenticationType, Channel, ChannelException, Message, SSHException, Transport)

from stack.machines.host_keys import Pinned
from stack.machines.ssh_config import SshConfig
from stack.machines.ssh_keys import Agent, Keys

# How long a host may take to say who it is and to judge a key, in seconds.
BANNER_TIMEOUT = AUTH_TIMEOUT = 30.0
# What paramiko says when the other end accepts but stays silent, and when it ends before it began.
UNANSWERED, NO_BANNER = ("No existing session", "Timeout opening channel."), "protocol banner"
# What sshd says after MaxAuthTries keys, which are six unless it is configured.
TOO_MANY = "Too many authentication failures"
# Errors are raised and reported with messages of our own.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class LoginFailed(Exception):
    """A host didn't let us in; `host` is it, or a jump host on the way."""

    def __init__(self, host: SshConfig, cause: str, remedy: str = "", *,
                 unanswered: bool = False) -> None:
        super().__init__(cause)
        self.remedy = remedy or f"try: ssh {host.target}"
        # It may be booting.
        self.unanswered = unanswered


class Connection(Transport):
    """An SSH connection that keeps why the other end has closed it."""

    reason = ""

    def _parse_disconnect(self, message: Message) -> None:
        message.get_int()
        self.reason = message.get_text()


class Login:
    """The connections to a machine and to the jump hosts on the way, in order."""

    def __init__(self, connections: Sequence[Connection], opened: ExitStack) -> None:
        self.connections = tuple(connections)
        self._opened = opened

    @property
    def transport(self) -> Transport:
        return self.connections[-1]

    def close(self) -> None:
        """End all of them."""
        self._opened.close()


def log_in(route: Sequence[SshConfig], key: Path | None, pinned: Pinned,
           timeout: float) -> Login:
    """Log in to each host of a route through the one before it.

    `key` is the inventory's, for the last one. `timeout` is in seconds, for each host whose
    ConnectTimeout isn't set. Raises LoginFailed, or Refused for a host key that isn't pinned.
    """
    connections: list[Connection] = []
    with ExitStack() as opened:
        # What ProxyCommand complains of.
        complaints = opened.enter_context(tempfile.TemporaryFile())
        for host in route:
            seconds = host.connect_timeout or timeout
            own = key if host is route[-1] else None
            try:
                way = _open(host, connections, seconds, opened, complaints)
                connection = Connection(way)
                opened.callback(connection.close)
                _meet(connection, host, pinned, seconds)
                _authenticate(connection, host, own)
            except (SSHException, OSError, EOFError) as error:
                raise _explained(host, error, seconds, complaints) from error
            connections.append(connection)
        return Login(connections, opened.pop_all())


def _open(host: SshConfig, before: Sequence[Connection], timeout: float,
          opened: ExitStack, complaints: IO[bytes]) -> socket.socket | Channel:
    """Return what carries a connection: a channel of the jump host's, or a socket."""
    if before:
        return before[-1].open_channel("direct-tcpip", (host.hostname, host.port), ("", 0),
                                       timeout=timeout)
    if host.proxy_command:
        return _through_command(host.proxy_command, opened, complaints)
    return _dial(host, timeout)


def _dial(host: SshConfig, timeout: float) -> socket.socket:
    """Connect to the first of a host's addresses that answers."""
    for *kind, _, address in socket.getaddrinfo(host.hostname, host.port, host.family,
                                                socket.SOCK_STREAM):
        dialled = socket.socket(*kind)
        dialled.settimeout(timeout)
        try:
            if host.bind_address:
                dialled.bind((host.bind_address, 0))
            dialled.connect(address)
            return dialled
        except OSError as error:
            dialled.close()
            failed = error
    raise failed


def _through_command(command: str, opened: ExitStack, complaints: IO[bytes]) -> socket.socket:
    """Start a ProxyCommand with a socket as its input and output."""
    near, far = socket.socketpair()
    with far:
        process = subprocess.Popen(["sh", "-c", f"exec {command}"], stdin=far.fileno(),
                                   stdout=far.fileno(), stderr=complaints)
    opened.callback(_end, process)
    return near


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _meet(connection: Connection, host: SshConfig, pinned: Pinned, timeout: float) -> None:
    """Agree on the encryption, and check the host's key."""
    connection.banner_timeout, connection.auth_timeout = BANNER_TIMEOUT, AUTH_TIMEOUT
    pinned.ask_for(connection, *host.pinned_as)
    connection.start_client(timeout=timeout)
    pinned.check(host.name, *host.pinned_as, connection.get_remote_server_key())


def _authenticate(connection: Connection, host: SshConfig, own: Path | None) -> None:
    """Offer one key after the other until the host takes one."""
    with closing(Agent(host.agent)) as agent:
        keys = Keys(host, own, agent)
        for count, key in enumerate(keys, 1):
            wants: Sequence[str] = ()
            try:
                wants = connection.auth_publickey(host.user, key)
            except BadAuthenticationType as error:
                wants = error.allowed_types
            except SSHException as error:
                if not connection.is_active():
                    raise _ended(connection, host, count) from error
                # The next one may do.
                continue
            if connection.is_authenticated():
                return
            if "publickey" not in wants:
                raise LoginFailed(host, f"{host.where} asks for {', '.join(wants)}, which ./fab "
                                        "doesn't answer")
    if keys.refused:
        raise LoginFailed(host, f"the agent doesn't sign with its key {keys.refused[0].comment} "
                                f"for {host.where}", "confirm it when asked; see ssh-add -l")
    if keys.unusable:
        file, why = next(iter(keys.unusable.items()))
        raise LoginFailed(host, f"the key for {host.where} {why}",
                          f"ssh-add it first: ssh-add {shlex.quote(str(file))}")
    raise LoginFailed(host, f"{host.where} accepts none of the keys from the inventory, the agent "
                            "and ~/.ssh")


def _ended(connection: Connection, host: SshConfig, count: int) -> LoginFailed:
    """Return the error for a host that closed the connection at a key."""
    said = connection.reason or "it says nothing"
    cause = f"{host.where} ended the login after {count} key{'s' if count > 1 else ''} ({said})"
    remedy = ("name the right key, with IdentitiesOnly yes and IdentityFile in ~/.ssh/config, or "
              "with ssh.key in the inventory")
    return LoginFailed(host, cause, remedy if said == TOO_MANY else "")


def _explained(host: SshConfig, error: Exception, timeout: float, complaints: IO[bytes]
               ) -> LoginFailed:
    """Say in one line what was tried and why it failed."""
    if isinstance(error, socket.gaierror):
        return LoginFailed(host, f"there is no address for the name {host.hostname}")
    if isinstance(error, TimeoutError) or str(error) in UNANSWERED:
        return LoginFailed(host, f"no answer from {host.where} within {timeout:.0f} s",
                           unanswered=True)
    complaints.seek(0)
    said = complaints.read().decode(errors="replace").strip().rpartition("\n")[2]
    # What the system says of a socket, and sshd of a channel.
    told = getattr(error, "strerror", None) or getattr(error, "text", None)
    why = said or told or str(error) or "it closed the connection"
    return LoginFailed(
        host, f"no connection to {host.where} ({why})",
        unanswered=not isinstance(error, SSHException) or isinstance(error, ChannelException)
        or NO_BANNER in str(error))
