"""Show what the cluster remembers: its releases, and who holds the lock."""

from datetime import datetime, timezone

from rich.table import Column, Table

from stack import attempts, console, engine, lock, records
from stack.attempts import Attempt
from stack.errors import Refused
from stack.records import Record
from stack.report import OUTCOMES
from stack.target import Target


COLUMNS = ("version", "ended at (UTC)", "took", "outcome", "requests failed", "by", "commit", "why")


@engine.in_one_line
def releases() -> None:
    """List the releases that were proven, and the changes that failed, the newest first.

    The first proven one is the current.
    """
    target = Target.reach("./fab releases")
    found: list[Record | Attempt] = [*records.history(target.client),
                                     *attempts.history(target.client)]
    if not found:
        raise Refused("no release is remembered here", "./fab deploy")
    # One line each: what there is no room for is left out at its end.
    table = Table(*(Column(name, no_wrap=name != "why") for name in COLUMNS), box=None,
                  pad_edge=False)
    for each in sorted(found, key=lambda each: each.at, reverse=True):
        at = datetime.fromtimestamp(each.at, timezone.utc)
        outcome, cause = (OUTCOMES[0], "") if isinstance(each, Record) \
            else (each.outcome, each.cause)
        table.add_row(each.version, f"{at:%Y-%m-%d %H:%M:%S}", f"{each.seconds:.0f} s", outcome,
                      _failures(each), each.who, each.commit[:12], console.cut(cause))
    console.table(table)


def _failures(change: Record | Attempt) -> str:
    if change.probe is None:
        return "-"
    return f"{change.probe['failures']} of {change.probe['requests']}"


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
