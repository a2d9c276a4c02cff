"""Pin the SSH host keys of machines: a key that has been seen once must not change."""

import base64
import hashlib
import threading
from pathlib import Path

from fabric import Connection
from paramiko import PKey, SSHClient
from paramiko.client import MissingHostKeyPolicy
from paramiko.hostkeys import HostKeys

from stack import progress
from stack.errors import Refused

FILE = "known_hosts"


class Pinned(MissingHostKeyPolicy):
    """The known host keys, in OpenSSH's file format, and what happens to an unknown one.

    It is refused, unless a person confirms its fingerprint or has chosen beforehand to trust
    new machines.
    """

    def __init__(self, path: Path, accept: bool = False) -> None:
        self.path, self.accept = path, accept
        # Machines are reached in parallel; a person is asked one question at a time.
        self._turn = threading.Lock()

    def guard(self, connection: Connection) -> None:
        """Let a connection, and each jump host on its way, accept only the pinned keys."""
        while isinstance(connection, Connection):
            if self.path.exists():
                connection.client.load_host_keys(str(self.path))
            connection.client.set_missing_host_key_policy(self)
            connection = connection.gateway

    def knows(self, host: str, port: int) -> bool:
        """Return whether a machine's key has been pinned."""
        return self._keys().lookup(_name(host, port)) is not None

    def _keys(self) -> HostKeys:
        return HostKeys(str(self.path)) if self.path.exists() else HostKeys()

    def missing_host_key(self, client: SSHClient, hostname: str, key: PKey) -> None:
        """Pin a new machine's key, or end with its fingerprint."""
        with self._turn:
            # Another thread may have pinned it in the meantime: machines may share a jump host.
            if self._keys().check(hostname, key):
                return
            if not self.accept and not progress.confirm(
                    f"{hostname} is new here; its host key is {described(key)}. Trust it?"):
                raise Refused(f"{hostname}: its host key {described(key)} isn't known here",
                              "compare it with the machine's own; then answer y on a terminal, or "
                              "say --accept-new-host-keys")
            # Somebody's editor may have left the last line without its end.
            text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
            begin = "\n" if text and not text.endswith("\n") else ""
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{begin}{hostname} {key.get_name()} {key.get_base64()}\n")


def described(key: PKey) -> str:
    """Return a key's type and fingerprint as ssh-keygen -l shows them."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"


def failed_at(connection: Connection) -> str:
    """Return the name in known_hosts of the host that failed: the machine or a jump host."""
    while isinstance(connection.gateway, Connection) and not connection.gateway.is_connected:
        connection = connection.gateway
    return _name(connection.host, connection.port)


def _name(host: str, port: int) -> str:
    return host if port == 22 else f"[{host}]:{port}"
