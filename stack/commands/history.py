"""Show what the cluster remembers: its releases, and who holds the lock."""

from datetime import datetime, timezone

from rich.table import Column, Table

from stack import console
from stack.commands.one_line import in_one_line
from stack.errors import OUTCOMES, Refused
from stack.release.target import Target
from stack.state import failed_changes
from stack.state.failed_changes import Attempt
from stack.state.releases import Record, history

COLUMNS = ("version", "ended at (UTC)", "took", "outcome", "requests failed", "by", "commit", "why")


@in_one_line
def releases() -> None:
    """List the releases that were proven, and the changes that failed, the newest first.

    The first proven one is the current.
    """
    target = Target.reach("./fab releases")
    found: list[Record | Attempt] = [*history(target.engine),
                                     *failed_changes.history(target.engine)]
    if not found:
        raise Refused("no release is recorded here", "./fab deploy")
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
