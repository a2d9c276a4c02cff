"""Change how many tasks serve the application; a deploy keeps the number."""

import re
import time

from stack import console, engine, lock, proof, records, rollback
from stack.definition import SCALABLE
from stack.errors import Refused
from stack.inventory import MOST_REPLICAS
from stack.target import Target


@engine.in_one_line
def scale(choice: str) -> None:
    """Run so many tasks, proven like a release; `choice` is app=N."""
    wanted = read_choice(choice)
    target = Target.reach("./fab scale")
    if chosen := target.settings.app_replicas:
        raise Refused(f"the inventory, .env or the environment says {chosen} tasks of app",
                      "change it there, then ./fab deploy; or take it out to scale by command")
    with lock.hold(target.client) as held:
        began, latest = time.time(), next(iter(records.history(target.client)), None)
        if latest is None:
            raise Refused("nothing is deployed here", "./fab deploy")
        console.heading(f"Scale app to {wanted}")
        stack = latest.stack.with_replicas(wanted)
        if proof.is_running(target, latest, stack):
            proof.confirm_unchanged(target, latest)
            return
        rollback.bring_in(target, stack, latest, began, held, replaced=latest)


def read_choice(choice: str) -> int:
    """Return how many tasks are wanted; raises Refused for anything but app=N."""
    found = re.fullmatch(rf"{SCALABLE}=([1-9][0-9]{{0,2}})", choice)
    if not found or int(found[1]) > MOST_REPLICAS:
        raise Refused(f"scale {choice!r}", f"it should be {SCALABLE}=N, N from 1 to "
                      f"{MOST_REPLICAS}: nothing else can run more than once")
    return int(found[1])
