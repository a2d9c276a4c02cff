"""Pin the SSH host keys of machines: a key that has been seen once must not change."""

import base64
import hashlib
import shlex
import threading
from pathlib import Path

from paramiko import PKey, Transport
from paramiko.hostkeys import HostKeys

from stack import progress
from stack.errors import Refused

FILE = "known_hosts"
# A host shows its RSA key by signing with it, no longer with SHA-1.
SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}


class Pinned:
    """The known host keys, in OpenSSH's file format, and what happens to an unknown one.

    It is refused, unless a person confirms its fingerprint or has chosen beforehand to trust
    new machines.
    """

    def __init__(self, path: Path, accept: bool = False) -> None:
        self.path, self.accept = path, accept
        # Machines are reached in parallel; a person is asked one question at a time.
        self._turn = threading.Lock()

    def knows(self, host: str, port: int) -> bool:
        """Return whether a machine's key has been pinned."""
        return self._keys().lookup(_name(host, port)) is not None

    def ask_for(self, transport: Transport, host: str, port: int) -> None:
        """Have a machine show a key of a pinned type, if it has several."""
        pinned = self._keys().lookup(_name(host, port)) or ()
        first = [name for kind in pinned for name in SIGNATURES.get(kind, (kind,))]
        options = transport.get_security_options()
        options.key_types = sorted(options.key_types, key=lambda name: name not in first)

    def check(self, name: str, host: str, port: int, key: PKey) -> None:
        """Accept only the pinned key; raises Refused for another one."""
        known = self._keys().lookup(_name(host, port))
        if known is None:
            return self._pin(_name(host, port), key)
        expected = known.get(key.get_name()) or next(iter(known.values()))
        if expected != key:
            forget = f"ssh-keygen -R '{_name(host, port)}' -f {shlex.quote(str(self.path))}"
            raise Refused(
                f"{name}: its host key has changed from {described(expected)} to "
                f"{described(key)}, so this may be another machine",
                f"if it was rebuilt: {forget}; else find out who answers there")

    def _keys(self) -> HostKeys:
        return HostKeys(str(self.path)) if self.path.exists() else HostKeys()

    def _pin(self, hostname: str, key: PKey) -> None:
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


def _name(host: str, port: int) -> str:
    return host if port == 22 else f"[{host}]:{port}"
