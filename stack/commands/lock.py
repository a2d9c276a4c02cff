"""Show who holds the deploy lock, and take it away."""

from stack import console
from stack.commands.one_line import in_one_line
from stack.errors import Refused
from stack.release.target import Target
from stack.state import lock


@in_one_line
def status() -> None:
    """Show who holds the lock, since when, and when it expires."""
    found = lock.holder(Target.reach("./fab lock.status").engine)
    until = f"; expires {found.until} unless renewed" if found and not found.expired else ""
    console.say(lock.describe(found) + until)


@in_one_line
def release(yes: bool) -> None:
    """Take the lock from its holder, after a confirmation."""
    target = Target.reach("./fab lock.release")
    found = lock.holder(target.engine)
    if found is None:
        console.say("the lock is already free")
        return
    if not yes and not console.confirm(
            f"Take the lock from {found.who}, who has held it since {found.began}?"):
        raise Refused("nothing was changed", "confirm with y, or pass --yes")
    lock.free(target.engine, found)
    console.say(f"released the lock of {found.who}, held since {found.began}")
