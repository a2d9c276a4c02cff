"""A machine with Tally, as its operator and its visitors see it."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.lab import Machine, Result

SENTENCE = re.compile(r"You have visited this page (\d+) times?\. Total visitors: (\d+)")
# Runs a shell line in the operator's home, with a timeout in seconds.
Shell = Callable[[str, float], Result]


@dataclass(frozen=True)
class Page:
    """The numbers on the page."""

    visits: int
    visitors: int


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    text: str


@dataclass(frozen=True)
class Site:
    """The project's clone on a machine, and the site that runs there."""

    address: str
    shell: Shell
    folder: str = "tally"

    def fab(self, arguments: str, *, timeout: float = 900, env: str = "") -> Result:
        """Run ./fab in the clone, whatever its exit code."""
        return self.shell(f"cd {self.folder} && {env} ./fab {arguments}", timeout)

    def sh(self, line: str) -> str:
        """Run a shell line in the clone; it has to succeed."""
        done = self.shell(f"cd {self.folder} && {line}", 300)
        assert done.code == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout

    def ask(self, path: str = "/", *, source: str = "", method: str = "GET",
            headers: dict[str, str] | None = None, timeout: float = 30) -> Answer:
        """Send one request to the site, from one of the host's addresses."""
        connection = http.client.HTTPConnection(
            self.address, timeout=timeout, source_address=(source, 0) if source else None)
        try:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value
                                          in answer.getheaders()}, answer.read().decode())
        finally:
            connection.close()

    def visit(self, source: str = "", headers: dict[str, str] | None = None) -> Page:
        """Open the page as a visitor and read the numbers on it."""
        answer = self.ask("/", source=source, headers=headers)
        found = SENTENCE.search(answer.text)
        assert answer.status == 200 and found, f"{answer.status}: {answer.text[:500]}"
        return Page(int(found[1]), int(found[2]))

    def visit_when_up(self, source: str, seconds: float) -> Page:
        """Retry a visit until the page answers; fail after that many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.visit(source)
            except (OSError, http.client.HTTPException, AssertionError):
                assert time.monotonic() < deadline, f"the site isn't back after {seconds} s"
                time.sleep(0.5)

    def version(self) -> str:
        """Return the version that the site reports."""
        return str(json.loads(self.ask("/version").text)["version"])

    def tasks(self, service: str = "") -> set[str]:
        """Return the IDs of the running tasks, of one service or of the whole stack."""
        name = f"--filter name=tally_{service}" if service else ""
        return set(self.sh("docker stack ps tally --quiet --no-trunc "
                           f"--filter desired-state=running {name}").split())

    def query(self, sql: str) -> str:
        """Query the site's database as its superuser, over its socket."""
        return self.sh("docker exec $(docker ps --quiet --filter "
                       "label=com.docker.swarm.service.name=tally_postgres) "
                       f'psql -U postgres -d tally -Atc "{sql}"').strip()

    def replace(self, path: str, old: str, new: str) -> None:
        """Replace text in a file of the clone."""
        program = (f"import pathlib; file = pathlib.Path({path!r}); text = file.read_text(); "
                   f"assert {old!r} in text; file.write_text(text.replace({old!r}, {new!r}))")
        self.sh(f"python3 - <<'END'\n{program}\nEND")

    def restore_files(self) -> None:
        """Undo every change to the clone's files."""
        self.sh("git checkout --quiet -- . && git clean --quiet -d --force")


def newcomer(machine: Machine, repository: Path, user: str) -> Site:
    """Clone the project into a user's home on a machine."""
    def shell(line: str, timeout: float) -> Result:
        return machine.run(line, user=user, check=False, timeout=timeout)
    home = "/root" if user == "root" else f"/home/{user}"
    machine.copy_in(repository, f"{home}/tally.git", user=user)
    cloned = shell("git clone --quiet tally.git tally", 60)
    assert cloned.code == 0, cloned.stderr
    return Site(machine.address, shell)


def bare_clone(checkout: Path, target: Path) -> Path:
    """Copy the checkout's commits to a bare repository that machines can clone."""
    bare = target / "tally.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", "--no-local", str(checkout), str(bare)],
                   check=True)
    return bare


def lines(result: Result) -> list[str]:
    """Return a command's lines on stderr, without empty ones."""
    return [line for line in result.stderr.splitlines() if line.strip()]


def changes(result: Result) -> list[str]:
    """Return the lines of the steps that changed something, without preflight and verdict."""
    return [line for line in result.stdout.splitlines() if line.startswith("  ")
            and line.split()[0] not in {"preflight", "verdict"} and "unchanged" not in line]
