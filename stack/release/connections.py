"""Count the database connections that the application's tasks need, and those that there are."""

import re
from pathlib import Path

from stack.errors import Refused
from stack.inventory import Inventory
from stack.swarm.stackfile import SCALABLE, Stack

DATABASE = "postgres"
SERVER = f"stack/images/{DATABASE}/postgresql.conf"
TASK = "stack/images/app/uwsgi.ini"
# PostgreSQL's own defaults (postgresql.org/docs/17/runtime-config-connection.html).
DEFAULTS = {"max_connections": 100, "superuser_reserved_connections": 3, "reserved_connections": 0}
# For a person who looks at the database. A migration has two, but runs before the update's tasks.
SPARE = 1


def check(stack: Stack, files: Path, chosen: Inventory | None) -> None:
    """Refuse more tasks than the database has connections for, during an update as well.

    `files` is the checkout whose images the stack runs. Nobody knows how many another database
    has, be it an image that the inventory names or a server elsewhere.
    """
    if chosen and DATABASE in chosen.images or not _runs_database(stack):
        return
    each, there = in_a_task(files / TASK), available(files / SERVER)
    extra = during_update(stack)
    needed = (stack.replicas + extra) * each + SPARE
    if needed > there:
        most = (there - SPARE) // each - extra
        raise Refused(
            f"{SCALABLE}: {stack.replicas} tasks are too many for the database: with {extra} more "
            f"during an update they need {needed} connections, and it has {there}",
            f"run at most {most} tasks, with ./fab scale {SCALABLE}={most}, or APP_REPLICAS or "
            f"the inventory if that is set there; or raise max_connections in {SERVER}")


def _runs_database(stack: Stack) -> bool:
    """Return whether the application uses the stack's own database."""
    url = stack.services[SCALABLE]["environment"]["DATABASE_URL"]
    return DATABASE in stack.services and re.search(rf"[@/]{DATABASE}[:/]", url) is not None


def during_update(stack: Stack) -> int:
    """Return how many tasks an update adds for a while.

    One starts, and the one that was replaced before it still drains.
    """
    deploy = stack.services[SCALABLE]["deploy"]
    updates = [deploy.get(key) or {} for key in ("update_config", "rollback_config")]
    return max(2 * int(update.get("parallelism", 1)) if update.get("order") == "start-first" else 0
               for update in updates)


def in_a_task(path: Path) -> int:
    """Return how many connections a task holds: one for each of uWSGI's threads."""
    return _number(path, "processes", 1) * _number(path, "threads", 1)


def available(path: Path) -> int:
    """Return how many connections the server has for its users."""
    most, *reserved = (_number(path, name, default) for name, default in DEFAULTS.items())
    return most - sum(reserved)


def _number(path: Path, name: str, default: int) -> int:
    """Return a setting, as uWSGI and PostgreSQL write it; the last one counts."""
    found = re.findall(rf"^\s*{name}\s*=?\s*'?(\d+)", path.read_text(), re.MULTILINE)
    return int(found[-1]) if found else default
