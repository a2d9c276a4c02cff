"""Collect metrics and expose them to Prometheus."""

from dataclasses import dataclass, field
from pathlib import Path

from flask import Blueprint, Flask, Response, abort, current_app, request
from prometheus_client import (
    CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest)
from prometheus_client.multiprocess import MultiProcessCollector

blueprint = Blueprint("metrics", __name__)

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# Labels come from a small fixed set, so that clients cannot exhaust the memory.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
PROXY_MARKS = ("X-Forwarded-", "Forwarded", "X-Real-Ip", "Via")


@dataclass(frozen=True)
class Metrics:
    """The metrics of one application, in its own registry."""

    registry: CollectorRegistry
    requests: Counter
    seconds: Histogram
    visits: Counter
    database_errors: Counter
    # By method, endpoint and status: to look up a metric's labels takes longer than to count.
    children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = field(default_factory=dict)

    @classmethod
    def make(cls) -> "Metrics":
        """Create every metric in a new registry."""
        registry = CollectorRegistry()
        return cls(
            registry=registry,
            requests=Counter(
                "tally_requests", "Requests answered.", ["method", "endpoint", "status"],
                registry=registry,
            ),
            seconds=Histogram(
                "tally_request_seconds", "Time to answer a request.", ["endpoint"],
                buckets=BUCKETS, registry=registry,
            ),
            visits=Counter("tally_visits", "Visits counted.", registry=registry),
            database_errors=Counter(
                "tally_database_errors", "Requests that the database failed.", registry=registry
            ),
        )

    def observe(self, method: str, endpoint: str | None, status: int, seconds: float) -> None:
        """Record one answered request and its duration."""
        key = method if method in METHODS else "other", endpoint or "none", status
        if key not in self.children:
            self.children[key] = (
                self.requests.labels(*key[:2], str(status)), self.seconds.labels(key[1])
            )
        requests, duration = self.children[key]
        requests.inc()
        duration.observe(seconds)


def register(app: Flask) -> None:
    """Create the application's metrics, and the directory that processes share."""
    directory = app.config["METRICS_DIRECTORY"]
    if directory is not None:
        Path(directory).mkdir(parents=True, exist_ok=True)
    app.extensions["metrics"] = Metrics.make()


def current_metrics() -> Metrics:
    """Return the metrics of the current application."""
    metrics: Metrics = current_app.extensions["metrics"]
    return metrics


@blueprint.get("/metrics")
def show() -> Response:
    """Answer Prometheus, which connects directly; answer 404 to requests through a proxy.

    This also covers spellings of the path that the proxy's own rules miss.
    """
    if any(name.startswith(PROXY_MARKS) for name in request.headers.keys()):
        abort(404)
    return Response(generate_latest(collected()), content_type=CONTENT_TYPE_LATEST)


def collected() -> CollectorRegistry:
    """Return the metrics of this process, or of all processes that share a directory."""
    directory = current_app.config["METRICS_DIRECTORY"]
    if directory is None:
        return current_metrics().registry
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=directory)  # type: ignore[no-untyped-call]
    return registry
