"""What the cluster remembers of each release: enough to know it and to restore it."""

import base64
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import docker

from stack.definition import Stack
from stack.swarm import STACK

LABEL = "tally.release"
KEPT = 10


@dataclass(frozen=True)
class Record:
    """One proven release.

    `content` is the whole rendered stack; `specs` maps each service to the hash
    of its definition as Docker held it then, so that a later change by hand shows.
    """

    version: str
    commit: str
    who: str
    at: float
    seconds: float
    content: dict[str, Any]
    specs: Mapping[str, str]

    @property
    def stack(self) -> Stack:
        return Stack(self.content)


def spec_hashes(client: docker.DockerClient) -> dict[str, str]:
    """Return the hash of each of the stack's services as Docker holds it now."""
    return {service.name.removeprefix(f"{STACK}_"): hashlib.sha256(
        json.dumps(service.attrs["Spec"], sort_keys=True).encode()).hexdigest()[:16]
        for service in services(client)}


def services(client: docker.DockerClient) -> list[Any]:
    """Return the stack's services; a migration's job isn't one."""
    return client.services.list(filters={"label": f"com.docker.stack.namespace={STACK}"})


def history(client: docker.DockerClient) -> list[Record]:
    """Return the proven releases that are remembered, newest first."""
    found = [Record(**json.loads(base64.b64decode(config.attrs["Spec"]["Data"])))
             for config in client.configs.list(filters={"label": LABEL})]
    return sorted(found, key=lambda record: record.at, reverse=True)


def before_current(history: list[Record]) -> Record | None:
    """Return the release before the current one, or None.

    After a rollback the current release has two records, and what was rolled
    back stands between them: the release before is older than both.
    """
    versions = [record.version for record in history]
    if not versions:
        return None
    first = len(versions) - 1 - versions[::-1].index(versions[0])
    return next(iter(history[first + 1:]), None)


def save(client: docker.DockerClient, record: Record) -> None:
    """Remember a release and forget the oldest beyond the last ten."""
    client.configs.create(name=_name(record), data=json.dumps(asdict(record)).encode(),
                          labels={LABEL: record.version})
    for old in history(client)[KEPT:]:
        client.api.remove_config(_name(old))


def forget_all(client: docker.DockerClient) -> None:
    """Remove every record: the stack they describe is gone."""
    for config in client.configs.list(filters={"label": LABEL}):
        config.remove()


def make(client: docker.DockerClient, *, version: str, commit: str, who: str, began: float,
         stack: Stack) -> Record:
    """Make the record of what runs now; `began` is when its deploy began, in Unix time."""
    now = time.time()
    return Record(version, commit, who, now, round(now - began, 1), stack.content,
                  spec_hashes(client))


def _name(record: Record) -> str:
    return f"{STACK}-release-{round(record.at * 1000)}"
