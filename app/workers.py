"""Prepare each worker process of uWSGI for its first request."""

from threading import Thread

from flask import Flask
from sqlalchemy.exc import DBAPIError

from app import logs
from app.models import db


def register(app: Flask) -> None:
    """Have each worker connect to the database at once, if uWSGI runs this application.

    No visitor then waits for the first connection of a process. It may take seconds while the
    network of a new container is set up.
    """
    try:
        import uwsgi
    except ImportError:
        return
    # In a thread: a worker loses the signals to end that come before it waits for requests.
    uwsgi.post_fork_hook = lambda: Thread(target=connect, args=(app,), daemon=True).start()


def connect(app: Flask) -> None:
    """Open the first connection of this process; the next request tries again if that fails."""
    with app.app_context():
        try:
            db.engine.connect().close()
        except DBAPIError as error:
            logs.log.warning("no connection yet", extra=logs.fields(cause=logs.cause(error)))
