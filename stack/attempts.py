"""Remember the changes that failed, so that whoever comes next knows what was tried."""

import base64
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from typing import Any

import docker
import requests
from docker.errors import DockerException

from stack import console, lock
from stack.errors import MigrationFailed, OperatorError, RestoreFailed, UpdateFailed
from stack.report import OUTCOMES
from stack.swarm import STACK

LABEL = "tally.attempt"
KEPT = 10
# What was refused has changed nothing, and only its operator needs to know.
FAILED = {error.exit_code for error in (MigrationFailed, UpdateFailed, RestoreFailed)}


@dataclass(frozen=True)
class Attempt:
    """One change that failed: to which version, by whom, and what came of it.

    `at` is when it ended, in Unix time, after `seconds`. `probe` is what the site's watcher
    met until it was given up, if it came so far.
    """

    version: str
    commit: str
    who: str
    at: float
    seconds: float
    outcome: str
    cause: str
    probe: Mapping[str, float] | None = None


@contextmanager
def noted(client: docker.DockerClient, version: str, commit: str,
          began: float) -> Iterator[None]:
    """Note how a change to a version ends, if it fails; `began` is in Unix time."""
    try:
        yield
    except OperatorError as error:
        if error.exit_code in FAILED:
            now = time.time()
            # How it failed matters more than that it can't be noted.
            with suppress(DockerException, requests.RequestException):
                save(client, Attempt(version, commit, lock.whoami(), now, round(now - began, 1),
                                     OUTCOMES[error.exit_code], error.cause,
                                     console.FACTS.get("probe")))
        raise


def save(client: docker.DockerClient, attempt: Attempt) -> None:
    """Remember an attempt and forget the oldest beyond the last ten."""
    client.configs.create(name=f"{STACK}-attempt-{round(attempt.at * 1000)}",
                          data=json.dumps(asdict(attempt)).encode(), labels={LABEL: "failed"})
    for old in _found(client)[KEPT:]:
        old.remove()


def history(client: docker.DockerClient) -> list[Attempt]:
    """Return the failed attempts that are remembered, newest first."""
    return [_parse(base64.b64decode(config.attrs["Spec"]["Data"])) for config in _found(client)]


def _parse(data: bytes) -> Attempt:
    """Read an attempt; what a later version may have added to it is left out."""
    known = {field.name for field in fields(Attempt)}
    return Attempt(**{name: value for name, value in json.loads(data).items() if name in known})


def forget_all(client: docker.DockerClient) -> None:
    """Remove every attempt: the stack that was to be changed is gone."""
    for config in _found(client):
        config.remove()


def _found(client: docker.DockerClient) -> list[Any]:
    return sorted(client.configs.list(filters={"label": LABEL}),
                  key=lambda config: str(config.name), reverse=True)
