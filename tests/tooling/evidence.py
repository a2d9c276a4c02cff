"""Keep the logs and the state of machines on which a test has failed."""

import os
import re
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from stack.inventory.settings import ROOT
from tests.lab.errors import LabError
from tests.lab.machine import Machine
from tests.tooling.rings import ARTIFACTS

# If everything fails, the run must not fill the disk or take hours.
MOST = 10
TIMEOUT = 30  # seconds for each command on a machine
QUESTIONS = {
    "journal": "journalctl --boot --no-pager --lines=5000",
    "docker": "set -x; docker ps --all --no-trunc; docker node ls; docker service ls; "
              "docker service ls --quiet | xargs --no-run-if-empty docker service ps --no-trunc; "
              "docker network ls; docker image ls --digests",
    "system": "set -x; df -h; free -m; ip -brief address; ss -lntup; ps -ef --forest",
}


def keep(test: str, machines: Iterable[Machine], into: Path = ARTIFACTS) -> Path | None:
    """Write each machine's journal, Docker's state and the system's to a folder for the test.

    Returns the folder, or None if there are enough already. A machine that doesn't answer, because
    it is off for example, is left out.
    """
    folder = into / re.sub(r"[^\w.-]+", "-", test.removesuffix(".py")).strip("-")[-150:]
    if len(list(into.glob("*"))) >= MOST:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    for machine in machines:
        for name, question in QUESTIONS.items():
            with suppress(LabError, OSError, subprocess.TimeoutExpired):
                answer = machine.console(question, check=False, timeout=TIMEOUT)
                (folder / f"{machine.name}.{name}").write_text(answer.stdout + answer.stderr)
    give_to_owner(into)
    return folder


def give_to_owner(folder: Path) -> None:
    """Let the checkout's owner remove a folder, although root runs the tests."""
    owner = ROOT.stat()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
