"""Say which migrations a deploy runs, and which SQL they send to the database."""

import ast
from collections.abc import Collection, Sequence
from pathlib import Path

import docker

from stack import images, schema
from stack.errors import Refused
from stack.machine import Machine
from stack.records import Record
from stack.registry import DOCKER_CONFIG
from stack.schema import Revision
from stack.settings import ROOT

PROGRAM = ROOT / "stack/revision_sql.py"
# It reads the image's files and prints: it needs no network, no rights and no disk.
RUN = ("docker", "run", "--rm", "--interactive", "--pull=never", "--network=none", "--read-only",
       "--cap-drop=ALL", "--memory=256m", "--no-healthcheck")


def known(applied: Sequence[Revision] | None, running: Record | None) -> Collection[str] | None:
    """Return the ids of the steps that the database has taken, None if nobody noted them.

    Without a note, it has at least those of the release that runs; before the first
    release, none.
    """
    if applied is None:
        applied = running.schema if running else ()
    return None if applied is None else {revision.id for revision in applied}


def lines(folder: Path, steps: Sequence[Revision]) -> list[str]:
    """Return a line for each step: what it says of itself and what it takes away."""
    said = _docstrings(folder) if steps else {}
    return [f"{step.id}: {said[step.id]}"
            + (f" (contracts: {step.contracts})" if step.contracts else "") for step in steps]


def _docstrings(folder: Path) -> dict[str, str]:
    """Return the first line of what each revision's file says of itself."""
    files = [path for path in folder.glob("*.py") if not path.name.startswith(schema.NO_REVISIONS)]
    return {schema.parse(path).id: _first_line(path) for path in files}


def _first_line(path: Path) -> str:
    said = ast.get_docstring(ast.parse(path.read_bytes())) or "says nothing of itself"
    return said.splitlines()[0]


def sql(client: docker.DockerClient, machine: Machine, image: str,
        steps: Sequence[Revision]) -> list[str]:
    """Return the lines of SQL that steps run, as the app's image on a machine makes it.

    Raises Refused if the image isn't there: nothing is built or fetched for it.
    """
    if not images.image_id(client, image):
        raise Refused(f"the SQL comes from the app's image, and {image} isn't on {machine.name}",
                      f"docker --config={DOCKER_CONFIG} pull {image}" if "@" in image
                      else "./fab build, then ./fab plan --sql")
    done = machine.run([*RUN, image, "python", "-", *(step.id for step in steps)],
                       stdin=PROGRAM.read_text(), timeout=60)
    if not done.ok:
        raise Refused(f"the migrations' SQL can't be made without the database ({done.last_line})",
                      "read it in migrations/versions")
    return done.stdout.strip().splitlines()
