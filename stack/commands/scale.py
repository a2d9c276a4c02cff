"""Change how many tasks serve the application; a deploy keeps the number."""

import re
import time

from stack import console
from stack.commands.one_line import in_one_line
from stack.errors import Refused
from stack.inventory import MOST_REPLICAS
from stack.inventory.settings import ROOT
from stack.release import connections, restore, verdict
from stack.release.found import Running
from stack.release.target import Target
from stack.state import lock, releases
from stack.swarm.stackfile import SCALABLE


@in_one_line
def scale(choice: str) -> None:
    """Run so many tasks, proven like a release; `choice` is app=N."""
    wanted = read_choice(choice)
    target = Target.reach("./fab scale")
    if chosen := target.settings.app_replicas:
        raise Refused(f"the inventory, .env or the environment sets {chosen} tasks of app",
                      "change it there, then ./fab deploy; or remove it to use ./fab scale")
    with lock.hold(target.engine) as held:
        began, latest = time.time(), releases.newest(target.engine)
        if latest is None:
            raise Refused("nothing is deployed here", "./fab deploy")
        console.heading(f"Scale app to {wanted}")
        stack = latest.stack.with_replicas(wanted)
        connections.check(stack, ROOT, target.fleet.inventory)
        if Running.read(target, latest).is_exactly(stack):
            verdict.confirm_unchanged(target, latest)
            return
        restore.bring_in(target, stack, latest, latest, began, held, replaces=True)


def read_choice(choice: str) -> int:
    """Return how many tasks are wanted; raises Refused for anything but app=N."""
    found = re.fullmatch(rf"{SCALABLE}=([1-9][0-9]{{0,2}})", choice)
    if not found or int(found[1]) > MOST_REPLICAS:
        raise Refused(f"scale {choice!r}", f"it should be {SCALABLE}=N, with N from 1 to "
                      f"{MOST_REPLICAS}; only {SCALABLE} can be scaled")
    return int(found[1])
