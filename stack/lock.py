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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from types import FrameType
from typing import NoReturn

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

from stack import console, engine
from stack.errors import Locked

NAME = "tally-lock"
LIFETIME = 45.0  # seconds without a renewal
RENEWAL = 10.0  # seconds between renewals
MARGIN = 3.0  # seconds that a renewal may take


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

    @property
    def until(self) -> str:
        return _utc(self.expires)

    def __str__(self) -> str:
        return f"{self.who} since {_utc(self.since)}"


def describe(found: Holder | None) -> str:
    """Say who holds the lock; one that has expired is anybody's."""
    return "free" if found is None or found.expired else str(found)


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


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


def free(client: docker.DockerClient, found: Holder) -> None:
    """Take the lock from its holder, who finds out before its next change."""
    _remove(client, found.config_id)


class Lock:
    """The lock while it is held; a thread renews it."""

    def __init__(self, client: docker.DockerClient, config_id: str) -> None:
        self._client = client
        self._config_id = config_id
        self._done = threading.Event()
        self._renewer = threading.Thread(target=self._renew_until_done, daemon=True)
        self._renewer.start()

    def require(self) -> None:
        """End the command if the lock went to somebody else, as after a machine's sleep."""
        try:
            self._client.api.inspect_config(self._config_id)
        except NotFound as error:
            raise Locked("this command lost the lock: it was asleep or cut off for more than "
                         f"{LIFETIME:.0f} s", "./fab status, then ./fab deploy") from error

    def release(self) -> None:
        """Stop renewing and free the lock; without an engine it expires by itself."""
        self._done.set()
        self._renewer.join(timeout=RENEWAL)
        with suppress(DockerException, requests.RequestException):
            _remove(self._client, self._config_id)

    def _renew_until_done(self) -> None:
        while not self._done.wait(RENEWAL):
            try:
                _renew(self._client, self._config_id)
            except NotFound:
                return
            except (DockerException, requests.RequestException):
                # The next try makes up for it.
                continue


@contextmanager
def hold(client: docker.DockerClient) -> Iterator[Lock]:
    """Hold the lock for a while; raises Locked if another does.

    A cancelled pipeline or a closed terminal frees it too.
    """
    held = Lock(client, _acquire(client))
    # What nohup has the command ignore stays ignored.
    before = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGHUP)
              if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        yield held
    finally:
        held.release()
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


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
            _take_over(client, other)


def _take_over(client: docker.DockerClient, other: Holder) -> None:
    """Remove a lock that has expired, unless its holder turns out to be alive."""
    console.say(f"{other} has held the lock until {other.until}: seeing whether it is renewed")
    if _is_alive(client, other):
        raise Locked(f"{other} holds the lock, though it would have expired by this computer's "
                     "clock", "set the clocks that are wrong; ./fab bootstrap names them")
    _remove(client, other.config_id)


def _is_alive(client: docker.DockerClient, expired: Holder) -> bool:
    """Tell whether a lock that has expired is renewed all the same: two clocks may differ."""
    deadline = time.monotonic() + RENEWAL + MARGIN
    while time.monotonic() < deadline:
        now = holder(client)
        if now is None or now.config_id != expired.config_id:
            return False
        if now.expires != expired.expires:
            return True
        time.sleep(1)
    return False


def _renew(client: docker.DockerClient, config_id: str) -> None:
    """Move the expiry on."""
    config = client.api.inspect_config(config_id)
    config["Spec"]["Labels"]["expires"] = str(time.time() + LIFETIME)
    engine.redefine(client, f"configs/{config_id}", config)


def _remove(client: docker.DockerClient, config_id: str) -> None:
    try:
        client.api.remove_config(config_id)
    except NotFound:
        return
