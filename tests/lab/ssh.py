"""Run commands on a machine over SSH, like its operator."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab import host
from tests.lab.errors import CommandFailed

CONNECT_TIMEOUT = 15.0


@dataclass(frozen=True)
class Result:
    """A command's output and exit code."""

    stdout: str
    stderr: str
    code: int


@dataclass(frozen=True)
class Keys:
    """The lab's key pair, and the file with its machines' host keys."""

    directory: Path

    @property
    def private(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def public(self) -> str:
        return self.private.with_suffix(".pub").read_text(encoding="ascii").strip()

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    def create(self) -> None:
        """Make the key pair."""
        host.call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab",
                   "-f", self.private])
        self.known_hosts.touch()


class Connection:
    """One shared connection per user to a machine, opened when first needed."""

    def __init__(self, address: str, keys: Keys) -> None:
        self.address = address
        self._keys = keys
        self._users: set[str] = set()

    def run(self, command: str | Sequence[str], user: str, timeout: float | None,
            env: Mapping[str, str]) -> Result:
        """Run a shell line or an argument list; raise TimeoutExpired after `timeout` seconds."""
        self._open(user)
        line = command if isinstance(command, str) else shlex.join(command)
        argv = self.argv(user, with_environment(line, env))
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=timeout, check=False)
        return Result(done.stdout, done.stderr, done.returncode)

    def copy_in(self, source: Path, destination: str, user: str) -> None:
        """Copy a file or a directory to the machine, with its times and modes."""
        self._open(user)
        host.call(["scp", "-rpq", *self.options(), source,
                   f"{user}@{self.address}:{destination}"])

    def answers(self, user: str) -> bool:
        """Return whether a login works now."""
        self._users.add(user)
        return host.succeeds(self.argv(user, "true"))

    def close(self) -> None:
        """Close the shared connections: the machine's end is gone or about to go."""
        for user in self._users:
            # It fails if the connection is already gone, which is fine.
            host.succeeds(["ssh", *self.options(), "-O", "exit", f"{user}@{self.address}"])
        self._users.clear()

    def argv(self, user: str, *command: str) -> list[str]:
        """Return the ssh command that logs in as `user`, for a shell or for one command."""
        return ["ssh", *self.options(), f"{user}@{self.address}", *command]

    def options(self) -> list[str]:
        """Return options that make ssh use only the lab's files, not the user's."""
        values = {
            "BatchMode": "yes",
            "ConnectTimeout": "5",
            "ControlMaster": "auto",
            "ControlPath": self._keys.directory / "%C",
            "ControlPersist": "60",
            "IdentitiesOnly": "yes",
            "IdentityFile": self._keys.private,
            "LogLevel": "ERROR",
            "ServerAliveInterval": "5",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": self._keys.known_hosts,
        }
        return ["-F", "none", *(f"-o{name}={value}" for name, value in values.items())]

    def _open(self, user: str) -> None:
        """Connect, with retries for a while: sshd may be restarting.

        Only the connection is retried, so no command runs twice.
        """
        if user in self._users and host.succeeds(
                ["ssh", *self.options(), "-O", "check", f"{user}@{self.address}"]):
            return
        host.wait_until(lambda: self.answers(user), CONNECT_TIMEOUT,
                        f"SSH to {user}@{self.address}")


def with_environment(line: str, env: Mapping[str, str]) -> str:
    """Return a shell line that sets variables first."""
    exports = [f"export {name}={shlex.quote(value)};" for name, value in env.items()]
    return " ".join([*exports, line])


def checked(command: str | Sequence[str], result: Result) -> Result:
    """Return the result; raise CommandFailed if the command failed."""
    if result.code != 0:
        line = command if isinstance(command, str) else shlex.join(command)
        raise CommandFailed(line, result.code, result.stdout + result.stderr)
    return result
