"""What the cluster remembers of each release: enough to know it and to restore it."""

import base64
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import docker

from stack.definition import Stack
from stack.probe import Report
from stack.swarm import STACK

LABEL = "tally.release"
KEPT = 10


@dataclass(frozen=True)
class Record:
    """One proven release.

    `content` is the whole rendered stack; `specs` maps each service to the hash
    of its definition as Docker held it then, so that a later change by hand shows.
    `probe` is what the site's watcher met, if the site served before.
    """

    version: str
    commit: str
    who: str
    at: float
    seconds: float
    content: dict[str, Any]
    specs: Mapping[str, str]
    probe: Mapping[str, float] | None = None

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
    found = [_parse(base64.b64decode(config.attrs["Spec"]["Data"]))
             for config in client.configs.list(filters={"label": LABEL})]
    return sorted(found, key=lambda record: record.at, reverse=True)


def _parse(data: bytes) -> Record:
    """Read a record; what a later version may have added to it is left out."""
    known = {field.name for field in fields(Record)}
    return Record(**{name: value for name, value in json.loads(data).items() if name in known})


def to_restore(history: list[Record], running: Mapping[str, str]) -> Record | None:
    """Return the release that a rollback brings back, or None.

    `running` is what spec_hashes returns now. If that isn't the last proven
    release, as after a killed update, the last proven one it is. Else it is the
    newest that differs from it and is older: after a rollback, what was rolled
    back stands between the two records of the same release.
    """
    if not history:
        return None
    if history[0].specs != running:
        return history[0]
    last = max(index for index, record in enumerate(history)
               if record.content == history[0].content)
    return next(iter(history[last + 1:]), None)


def named(history: list[Record], version: str) -> Record | None:
    """Return the newest record of a version, or None."""
    return next((record for record in history if record.version == version), None)


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
         stack: Stack, probe: Report | None) -> Record:
    """Make the record of what runs now; `began` is when its deploy began, in Unix time."""
    now = time.time()
    return Record(version, commit, who, now, round(now - began, 1), stack.content,
                  spec_hashes(client), asdict(probe) if probe else None)


def _name(record: Record) -> str:
    return f"{STACK}-release-{round(record.at * 1000)}"
