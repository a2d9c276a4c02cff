"""Show what the cluster remembers: its releases, and who holds the lock."""

from datetime import datetime, timezone

from rich.table import Table

from stack import console, engine, lock, records
from stack.errors import Refused
from stack.target import Target


@engine.in_one_line
def releases() -> None:
    """List the proven releases, the newest first; the first one is the current."""
    target = Target.reach("./fab releases")
    history = records.history(target.client)
    if not history:
        raise Refused("no release is remembered here", "./fab deploy")
    table = Table("version", "proven at (UTC)", "took", "requests failed", "by", "commit",
                  box=None, pad_edge=False)
    for record in history:
        at = datetime.fromtimestamp(record.at, timezone.utc)
        table.add_row(record.version, f"{at:%Y-%m-%d %H:%M:%S}", f"{record.seconds:.0f} s",
                      _failures(record), record.who, record.commit[:12])
    console.table(table)


def _failures(record: records.Record) -> str:
    if record.probe is None:
        return "-"
    return f"{record.probe['failures']} of {record.probe['requests']}"


@engine.in_one_line
def lock_status() -> None:
    """Say who holds the lock, since when and how long at most without a sign of life."""
    found = lock.holder(Target.reach("./fab lock").client)
    until = f"; expires {found.until} unless renewed" if found and not found.expired else ""
    console.say(lock.describe(found) + until)


@engine.in_one_line
def lock_release(yes: bool) -> None:
    """Take the lock from whoever holds it, after asking."""
    target = Target.reach("./fab lock")
    found = lock.holder(target.client)
    if found is None:
        console.say("free already")
        return
    if not yes and not console.confirm(f"Take the lock from {found}?"):
        raise Refused("nothing was changed", "answer y, or say --yes")
    lock.free(target.client, found)
    console.say(f"freed: {found} had it")
