"""Tell of every request: one log line, and the metrics."""

import logging
import time

from flask import Flask, Response, g, request

from app import logs
from app.metrics import current_metrics


def register(app: Flask) -> None:
    """Start a clock before each request, and report when its response is made."""
    app.before_request(start_clock)
    app.after_request(report)


def start_clock() -> None:
    """Remember when the request began."""
    g.started = time.perf_counter()


def report(response: Response) -> Response:
    """Log and measure the request; its query and its sender stay untold."""
    seconds = time.perf_counter() - g.started
    current_metrics().observe(request, response.status_code, seconds)
    details = logs.fields(
        method=request.method,
        path=request.path,
        status=response.status_code,
        milliseconds=round(seconds * 1000, 2),
        endpoint=request.endpoint,
    )
    logs.log.log(importance(response.status_code), "request", extra=details)
    return response


def importance(status: int) -> int:
    """Return the log level; that this process is alive, Docker asks every other second."""
    if request.endpoint == "health.alive" and status == 200:
        return logging.DEBUG
    return logging.ERROR if status >= 500 else logging.INFO
