"""Count and time what this application does, and show it to Prometheus."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from flask import Blueprint, Flask, Request, Response, abort, current_app, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from app.config import current_config

blueprint = Blueprint("metrics", __name__)

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# Labels must come from a small set: what a client makes up would fill the memory.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
PROXY_MARKS = ("X-Forwarded-", "Forwarded", "X-Real-Ip", "Via")


@dataclass(frozen=True)
class Metrics:
    """This application's metrics; of its own, so that two applications don't mix."""

    registry: CollectorRegistry
    requests: Counter
    seconds: Histogram
    visits: Counter
    database_errors: Counter

    @classmethod
    def make(cls) -> "Metrics":
        """Define every metric in a new registry."""
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

    def observe(self, request: Request, status: int, seconds: float) -> None:
        """Count one answered request and its time."""
        method = request.method if request.method in METHODS else "other"
        endpoint = request.endpoint or "none"
        self.requests.labels(method, endpoint, str(status)).inc()
        self.seconds.labels(endpoint).observe(seconds)


def register(app: Flask, directory: str | None) -> None:
    """Give the application its metrics, in a directory if processes share them."""
    if directory is not None:
        Path(directory).mkdir(parents=True, exist_ok=True)
    app.extensions["metrics"] = Metrics.make()


def current_metrics() -> Metrics:
    """Return the metrics of the application that answers this request."""
    return cast(Metrics, current_app.extensions["metrics"])


@blueprint.get("/metrics")
def show() -> Response:
    """Answer Prometheus, which asks directly; to who comes through a proxy, nothing is here.

    This holds whatever spelling of the path got past the proxy's own rules.
    """
    if any(name.startswith(PROXY_MARKS) for name in request.headers.keys()):
        abort(404)
    return Response(generate_latest(collected()), content_type=CONTENT_TYPE_LATEST)


def collected() -> CollectorRegistry:
    """Return the metrics of this process, or of all if they share a directory."""
    directory = current_config().metrics_directory
    if directory is None:
        return current_metrics().registry
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=directory)  # type: ignore[no-untyped-call]
    return registry
