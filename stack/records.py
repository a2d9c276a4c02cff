"""What the cluster remembers of each release: enough to know it and to restore it."""

import base64
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import docker

from stack.definition import Stack
from stack.errors import Refused
from stack.probe import Report
from stack.schema import Revision, newer_than
from stack.swarm import BEGUN_ANEW, OF_STACK, STACK

LABEL = "tally.release"
# Of what the database was migrated to, also by a release that was never proven.
SCHEMA = "tally.schema"
# The label's values: what a migration has done, and what one was about to do.
APPLIED, BEGUN = "applied", "begun"
KEPT = 10


@dataclass(frozen=True)
class Record:
    """One proven release.

    `content` is the whole rendered stack; `specs` maps each service to the hash
    of its definition as Docker held it then, so that a later change by hand shows, and
    `definitions` has these in full. `revisions` are the steps of the schema that its
    code knows, None if that wasn't recorded yet. `probe` is what the site's watcher
    met, if the site served before.
    """

    version: str
    commit: str
    who: str
    at: float
    seconds: float
    content: dict[str, Any]
    specs: Mapping[str, str]
    probe: Mapping[str, float] | None = None
    definitions: Mapping[str, Any] = field(default_factory=dict)
    revisions: Sequence[Mapping[str, Any]] | None = None

    @property
    def schema(self) -> tuple[Revision, ...] | None:
        return None if self.revisions is None else _revisions(self.revisions)

    @property
    def stack(self) -> Stack:
        return Stack(self.content)

    @property
    def essence(self) -> dict[str, Any]:
        """The stack without the number of tasks: scaled, a release is still the same."""
        return self.stack.with_replicas(1).content


def spec_hashes(client: docker.DockerClient) -> dict[str, str]:
    """Return the hash of each of the stack's services as Docker holds it now."""
    return {name: _hash(spec) for name, spec in definitions(client).items()}


def require_service(client: docker.DockerClient, service: str) -> None:
    """Refuse the name of a service that doesn't run here."""
    names = sorted(spec_hashes(client))
    if service not in names:
        raise Refused(f"there is no service {service!r}",
                      f"choose one of: {', '.join(names) or 'none, ./fab deploy first'}")


def definitions(client: docker.DockerClient) -> dict[str, dict[str, Any]]:
    """Return each of the stack's services as Docker holds it now.

    That an update was begun anew makes it no other service.
    """
    return {service.name.removeprefix(f"{STACK}_"): _without(BEGUN_ANEW, service.attrs["Spec"])
            for service in services(client)}


def _without(label: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec, "Labels": {key: value for key, value in spec["Labels"].items()
                               if key != label}}


def _hash(spec: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def services(client: docker.DockerClient) -> list[Any]:
    """Return the stack's services; a migration's job isn't one."""
    return client.services.list(filters=OF_STACK)


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
    release, as after a killed update, the last proven one it is, unless a rollback from
    it was broken off: that is completed. Else it is the newest that differs from it and
    is older: after a rollback, what was rolled back stands between the two records of
    the same release.
    """
    if not history:
        return None
    latest = history[0]
    last = max(index for index, record in enumerate(history) if record.essence == latest.essence)
    earlier = next(iter(history[last + 1:]), None)
    if latest.specs == running or earlier and _is_on_the_way(running, latest, earlier):
        return earlier
    return latest


def _is_on_the_way(running: Mapping[str, str], start: Record, end: Record) -> bool:
    """Tell whether each service is as in one of two releases, and some are at the end already."""
    pairs = [(now, start.specs.get(name), end.specs.get(name)) for name, now in running.items()]
    return all(now in (before, after) for now, before, after in pairs) \
        and any(now == after != before for now, before, after in pairs)


def named(history: list[Record], version: str) -> Record | None:
    """Return the newest record of a version, or None."""
    return next((record for record in history if record.version == version), None)


def save(client: docker.DockerClient, record: Record) -> None:
    """Remember a release and forget the oldest beyond the last ten."""
    client.configs.create(name=_name(record), data=json.dumps(asdict(record)).encode(),
                          labels={LABEL: record.version})
    for old in history(client)[KEPT:]:
        client.api.remove_config(_name(old))


def forget(client: docker.DockerClient, record: Record) -> None:
    """Remove one record."""
    client.api.remove_config(_name(record))


def forget_all(client: docker.DockerClient) -> None:
    """Remove every record: the stack they describe is gone."""
    for config in client.configs.list(filters={"label": LABEL}):
        config.remove()


def applied(client: docker.DockerClient) -> tuple[Revision, ...] | None:
    """Return the steps that the database's schema has taken, None if nobody noted them."""
    return _newest_note(client, APPLIED)


def possible(client: docker.DockerClient) -> tuple[Revision, ...] | None:
    """Return the steps that the schema may have taken: also those that a migration began.

    One that failed half-way, or whose end nobody saw, may have taken some of them.
    """
    done, begun = applied(client), _newest_note(client, BEGUN)
    if done is None or begun is None:
        return done if begun is None else begun
    return (*done, *newer_than(begun, {revision.id for revision in done}))


def note_begun(client: docker.DockerClient, revisions: Sequence[Revision]) -> None:
    """Note what a migration is about to bring the database to."""
    _note(client, BEGUN, revisions)


def note_applied(client: docker.DockerClient, revisions: Sequence[Revision]) -> None:
    """Note what a migration has just brought the database to, and with that what it began.

    Steps that an older release doesn't know stay: its migration leaves them as they are.
    """
    known = {revision.id for revision in revisions}
    _note(client, APPLIED, (*revisions, *newer_than(applied(client) or (), known)))


def _newest_note(client: docker.DockerClient, kind: str) -> tuple[Revision, ...] | None:
    found = [each for each in _noted(client) if each.attrs["Spec"]["Labels"][SCHEMA] == kind]
    return _revisions(json.loads(base64.b64decode(found[0].attrs["Spec"]["Data"]))) \
        if found else None


def _note(client: docker.DockerClient, kind: str, revisions: Sequence[Revision]) -> None:
    """Note steps; a later note takes the place of those of its own kind, `applied` of all."""
    earlier = [each for each in _noted(client)
               if kind == APPLIED or each.attrs["Spec"]["Labels"][SCHEMA] == kind]
    client.configs.create(
        name=f"{STACK}-schema-{round(time.time() * 1000)}", labels={SCHEMA: kind},
        data=json.dumps([asdict(revision) for revision in revisions]).encode())
    for old in earlier:
        old.remove()


def forget_applied(client: docker.DockerClient) -> None:
    """Forget the schema of a database that is gone."""
    for config in _noted(client):
        config.remove()


def _noted(client: docker.DockerClient) -> list[Any]:
    found = client.configs.list(filters={"label": SCHEMA})
    return sorted(found, key=lambda config: str(config.name), reverse=True)


def _revisions(content: Sequence[Mapping[str, Any]]) -> tuple[Revision, ...]:
    return tuple(Revision(**revision) for revision in content)


def make(client: docker.DockerClient, *, version: str, commit: str, who: str, began: float,
         stack: Stack, probe: Report | None, schema: Sequence[Revision] | None) -> Record:
    """Make the record of what runs now; `began` is when its deploy began, in Unix time."""
    now, running = time.time(), definitions(client)
    return Record(version, commit, who, now, round(now - began, 1), stack.content,
                  {name: _hash(spec) for name, spec in running.items()},
                  asdict(probe) if probe else None, running,
                  None if schema is None else [asdict(revision) for revision in schema])


def _name(record: Record) -> str:
    return f"{STACK}-release-{round(record.at * 1000)}"
