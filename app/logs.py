"""Write logs as one JSON object a line on stdout, without addresses."""

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any

log = logging.getLogger("tally")


class JsonFormatter(logging.Formatter):
    """Format a record, also one with a traceback, as a single line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; the fields given with the record follow its message."""
        time = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1]:
            line["cause"] = cause(record.exc_info[1])
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class StdoutHandler(logging.Handler):
    """Write to what is standard output now; the one handler of this process."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a reader of logs that went away must not stop the pages."""
        try:
            # One write, so that lines of several processes don't mix.
            sys.stdout.write(self.format(record) + "\n")
            sys.stdout.flush()
        except OSError:
            self.handleError(record)


def configure() -> None:
    """Send all logs to stdout as JSON, replacing what an earlier call set up."""
    handler = StdoutHandler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if not isinstance(other, StdoutHandler)]
    root.addHandler(handler)
    log.setLevel(logging.INFO)
    # The development server's own request line has the client's address in it.
    logging.getLogger("werkzeug").addFilter(is_not_a_request)


def is_not_a_request(record: logging.LogRecord) -> bool:
    """Tell the development server's other messages from its line for a request."""
    return " - - [" not in str(record.msg)


def fields(**values: object) -> dict[str, dict[str, object]]:
    """Wrap fields as logging's "extra", under one name that can't clash with its own."""
    return {"fields": values}


def cause(error: BaseException) -> str:
    """Describe an error on one line; of a database error the driver's own words."""
    original = getattr(error, "orig", None) or error
    return f"{type(original).__name__}: {' '.join(str(original).split())}"
