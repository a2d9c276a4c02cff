"""Measure what logs, metrics and headers cost of a page, and what the chart does.

    pip install --require-hashes -r requirements.test.txt
    python bench/page.py

In one process, on a PostgreSQL of its own: each part as often as the page, the fastest of many
rounds, in processor time of this process alone. The log goes to /dev/null.
"""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# Run as a script, Python looks for modules beside it only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flask import Response  # noqa: E402
from werkzeug.test import EnvironBuilder, run_wsgi_app  # noqa: E402

from app import create_app, headers, logs  # noqa: E402
from app.chart import chart, drawn  # noqa: E402
from app.figures import DAYS_SHOWN, utc_today  # noqa: E402
from app.metrics import current_metrics  # noqa: E402
from tests.app.conftest import migrated  # noqa: E402
from tests.support.services import postgres  # noqa: E402

ROUNDS, TIMES = 40, 100


def fastest(work: Callable[[], object]) -> float:
    """Return the microseconds that this takes when nothing disturbs it."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        for _ in range(TIMES):
            work()
        rounds.append((time.thread_time() - began) / TIMES * 1e6)
    return min(rounds)


def measure() -> dict[str, float]:
    """Return the microseconds of the page and of its parts."""
    with (postgres() as server, server.database("tally_page") as database,
          tempfile.TemporaryDirectory() as shared):
        app = create_app({**migrated(database).environ(database.user),
                          "PROMETHEUS_MULTIPROC_DIR": shared})
        environ = EnvironBuilder(headers=[("X-Forwarded-For", "192.0.2.1")]).get_environ()
        page = fastest(lambda: run_wsgi_app(app, environ.copy()))
        secured = headers.Secured(lambda environ, start: start("200 OK", []))
        with app.test_request_context("/"):
            metrics, response = current_metrics(), Response()
            return {
                "page": page,
                "logs": fastest(lambda: logs.write(
                    20, "request", method="GET", path="/", status=200, milliseconds=0.25,
                    endpoint="views.page")),
                "metrics": fastest(lambda: metrics.observe("GET", "views.page", 200, 0.001))
                + fastest(metrics.visits.inc),
                "headers": fastest(lambda: secured({}, lambda *answer: []))
                + fastest(lambda: headers.limit_caching(response)),
                "chart, if its figures changed": fastest(
                    lambda: drawn(chart({utc_today(): 7}, utc_today(), DAYS_SHOWN))),
            }


def main() -> None:
    """Print each part and its share of the page."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        parts = measure()
    for name, taken in parts.items():
        print(f"{name:30} {taken:7.1f} µs  {taken / parts['page']:6.1%}")
    share = sum(parts[name] for name in ("logs", "metrics", "headers")) / parts["page"]
    print(f"{'logs, metrics and headers':41}  {share:6.1%}")


if __name__ == "__main__":
    main()
