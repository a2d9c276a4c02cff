"""Watch the site during a change, as its visitors would."""

import http.client
import itertools
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

INTERVAL = 0.05  # seconds between requests
PATIENCE = 5.0  # seconds until a visitor gives up


@dataclass(frozen=True)
class Report:
    """The results of the requests; times in milliseconds, the gap in seconds.

    The gap is the longest time without a successful response.
    """

    requests: int
    failures: int
    p50: float
    p99: float
    longest_gap: float

    def __str__(self) -> str:
        return (f"{self.requests} requests, {self.failures} failed, p50 {self.p50:.0f} ms, "
                f"p99 {self.p99:.0f} ms, longest gap {self.longest_gap:.1f} s")


@dataclass
class Watch:
    """The results so far: when each successful response came, and how long it took."""

    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    failures: int = 0
    answered: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)

    def report(self) -> Report:
        """Summarize; without any response, the gap is the whole time."""
        marks = [self.began, *self.answered, self.ended or time.monotonic()]
        gap = max(later - earlier for earlier, later in zip(marks, marks[1:]))
        cuts = statistics.quantiles(self.took, n=100) if len(self.took) > 1 \
            else (self.took or [0.0]) * 99
        return Report(len(self.took) + self.failures, self.failures, cuts[49] * 1000,
                      cuts[98] * 1000, gap)


@contextmanager
def watching(hosts: Sequence[str], port: int) -> Iterator[Watch]:
    """Request the page through Traefik at most 20 times a second, without counting visits.

    The next request starts 50 ms after the last one's answer, so a site that hangs is one failure
    and a long gap. Takes turns between the edge nodes.
    """
    watch, done = Watch(), threading.Event()
    thread = threading.Thread(target=_ask_until, args=(done, watch, hosts, port), daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join(PATIENCE + INTERVAL)
        watch.ended = time.monotonic()


def _ask_until(done: threading.Event, watch: Watch, hosts: Sequence[str], port: int) -> None:
    turns = itertools.cycle(hosts)
    while not done.wait(INTERVAL):
        asked = time.monotonic()
        if is_answered(next(turns), port):
            watch.answered.append(time.monotonic())
            watch.took.append(watch.answered[-1] - asked)
        else:
            watch.failures += 1


def is_answered(host: str, port: int) -> bool:
    """Request the page on a new connection, as a new visitor would.

    HEAD does all that GET does, including the database, but counts no visit.
    """
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request("HEAD", "/")
        answer = connection.getresponse()
        answer.read()
        return answer.status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
