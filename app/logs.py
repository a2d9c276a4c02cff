"""Write logs to stdout without addresses: as JSON in production, else for a person."""

import json
import logging
import re
import sys
from datetime import datetime, timezone
from typing import Any

from werkzeug.serving import WSGIRequestHandler

log = logging.getLogger("tally")

# The longest text of a line in characters, so that no client can fill the log.
LONGEST = 500
# As the servers quote it: user "tally_app" in PostgreSQL, user 'tally_app' in MariaDB.
USER_NAME = re.compile(r"\b(user|role) ([\"'])[^\"']*\2")
# The development server colours its messages.
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class JsonFormatter(logging.Formatter):
    """Format a record, including its traceback, as a single line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; extra fields follow the message."""
        time = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": message(record),
            **details(record),
        }
        if record.exc_info and record.exc_info[1]:
            line["cause"] = bounded(cause(record.exc_info[1]))
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """Format a record for a person: one line, then its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text; extra fields follow the message."""
        time = datetime.fromtimestamp(record.created)
        text = "\n".join(map(printable, message(record).splitlines()))
        words = [f"{time:%H:%M:%S}", record.levelname.lower(), text]
        words += [f"{name}={printable(str(value))}" for name, value in details(record).items()]
        lines = [" ".join(words)]
        if record.exc_info and record.exc_info[1]:
            lines.append(self.formatException(record.exc_info))
        return "\n".join(lines)


def message(record: logging.LogRecord) -> str:
    """Return a record's message without colours."""
    return bounded(COLOUR.sub("", record.getMessage()))


def details(record: logging.LogRecord) -> dict[str, Any]:
    """Return a record's extra fields."""
    fields: dict[str, Any] = getattr(record, "fields", {})
    return {
        name: bounded(value) if isinstance(value, str) else value for name, value in fields.items()
    }


def bounded(text: str) -> str:
    """Return the text, or the start of one that is too long."""
    return text if len(text) <= LONGEST else text[:LONGEST] + "\u2026"


def printable(text: str) -> str:
    """Return the text with everything escaped that a terminal would obey."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


class StdoutHandler(logging.Handler):
    """Write to the current sys.stdout, even if it was replaced after startup."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a closed stdout must not fail a request."""
        try:
            # A single write keeps the lines of several processes apart.
            sys.stdout.write(self.format(record) + "\n")
            sys.stdout.flush()
        except OSError:
            self.handleError(record)


def configure(production: bool) -> None:
    """Send all logs to stdout; replace the handler of an earlier call."""
    handler = StdoutHandler()
    handler.setFormatter(JsonFormatter() if production else TextFormatter())
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if not isinstance(other, StdoutHandler)]
    root.addHandler(handler)
    log.setLevel(logging.INFO)
    # No line shows them, and each costs some time.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # The development server's request lines contain the client's address.
    WSGIRequestHandler.log = discard  # type: ignore[assignment, method-assign]


def discard(handler: WSGIRequestHandler, type: str, message: str, *args: object) -> None:
    """Ignore a line of the development server about one request."""


def write(level: int, text: str, **values: object) -> None:
    """Log a line with these fields.

    Unlike log.log, this doesn't look for the place in the code that logs, which no line shows.
    """
    if log.isEnabledFor(level):
        log.handle(log.makeRecord(log.name, level, "", 0, text, (), None, extra=fields(**values)))


def fields(**values: object) -> dict[str, dict[str, object]]:
    """Return the fields as logging's "extra", nested to avoid clashes with its own names."""
    return {"fields": values}


def cause(error: BaseException) -> str:
    """Describe an error on one line; use the driver's message for a database error.

    PostgreSQL's message without its details, which may repeat a visitor's digest, and without the
    user's name, in whose place of a URL a password may have been written.
    """
    original = getattr(error, "orig", None) or error
    text = getattr(getattr(original, "diag", None), "message_primary", None) or str(original)
    text = USER_NAME.sub(r"\1 \2***\2", " ".join(text.split()))
    return f"{type(original).__name__}: {text}"
