"""Let one command at a time change the stack, whoever runs it and wherever.

The lock is a Swarm config: Raft makes creating one by name atomic, and every
laptop and pipeline sees it. It expires unless its holder renews it, so that a
killed deploy doesn't hold it for ever.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

from stack.errors import Locked

NAME = "tally-lock"
LIFETIME = 45.0  # seconds without a renewal
RENEWAL = 10.0  # seconds between renewals


@dataclass(frozen=True)
class Holder:
    """Who holds the lock, since when, and until when unless it is renewed."""

    config_id: str
    who: str
    since: float
    expires: float

    @property
    def expired(self) -> bool:
        return time.time() > self.expires

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, timezone.utc)
        return f"{self.who} since {since:%Y-%m-%d %H:%M:%S} UTC"


def whoami() -> str:
    """Name this run as others should see it: its pipeline, or user and host."""
    if os.environ.get("CI_JOB_URL"):
        return os.environ["CI_JOB_URL"]
    user = os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.getuid())
    return f"{user}@{socket.gethostname()} (pid {os.getpid()})"


def holder(client: docker.DockerClient) -> Holder | None:
    """Return who holds the lock now, or None."""
    for config in client.configs.list(filters={"name": NAME}):
        labels = config.attrs["Spec"]["Labels"]
        if config.name == NAME:
            return Holder(str(config.id), labels["who"], float(labels["since"]),
                          float(labels["expires"]))
    return None


@contextmanager
def hold(client: docker.DockerClient) -> Iterator[None]:
    """Hold the lock for a while, renewing it; raises Locked if another does."""
    config_id = _acquire(client)
    # A cancelled pipeline sends SIGTERM: free the lock then too.
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    done = threading.Event()
    renewer = threading.Thread(target=_renew, args=(client, config_id, done), daemon=True)
    renewer.start()
    try:
        yield
    finally:
        done.set()
        renewer.join(timeout=RENEWAL)
        _remove(client, config_id)
        signal.signal(signal.SIGTERM, before)


def _acquire(client: docker.DockerClient) -> str:
    now = time.time()
    labels = {"who": whoami(), "since": str(now), "expires": str(now + LIFETIME)}
    while True:
        try:
            return str(client.configs.create(name=NAME, data=b"lock", labels=labels).id)
        except APIError as error:
            if error.status_code != 409:
                raise
        other = holder(client)
        if other and not other.expired:
            raise Locked(f"{other} holds the lock; it is freed {LIFETIME:.0f} s after a killed "
                         "command's last sign of life", "try again when it has ended")
        if other:
            _remove(client, other.config_id)


def _renew(client: docker.DockerClient, config_id: str, done: threading.Event) -> None:
    """Move the expiry on until told to stop; a failed try is made up by the next."""
    while not done.wait(RENEWAL):
        try:
            config = client.api.inspect_config(config_id)
            spec = config["Spec"]
            spec["Labels"]["expires"] = str(time.time() + LIFETIME)
            # The SDK has no call for it; its client is a requests session.
            client.api.post(f"{client.api.base_url}/v{client.api.api_version}"
                            f"/configs/{config_id}/update",
                            params={"version": config["Version"]["Index"]}, json=spec, timeout=10)
        except (DockerException, requests.RequestException):
            continue


def _remove(client: docker.DockerClient, config_id: str) -> None:
    try:
        client.api.remove_config(config_id)
    except NotFound:
        return
