"""Deploy this checkout, or build its images only."""

import math
import re
import time

from stack import console
from stack.commands import report
from stack.commands.one_line import in_one_line
from stack.errors import Refused
from stack.release import prepare, render, verdict
from stack.release.found import Running
from stack.release.target import Target
from stack.release.update import Wanted, update
from stack.state import lock
from stack.state.failed_changes import noted


def deploy(probe_budget: str = "", as_json: bool = False) -> None:
    """Deploy this checkout, or leave the running release untouched.

    More failed requests than `probe_budget`, if one is given, fail the deploy.
    """
    with report.printed("deploy", as_json):
        _deploy(read_budget(probe_budget))


@in_one_line
def _deploy(budget: float) -> None:
    target = Target.reach("./fab deploy")
    console.heading("Deploy")
    with lock.hold(target.engine) as held, prepare.snapshot_of(target) as snapshot:
        began = time.time()
        prepared = prepare.prepare(target, snapshot)
        release, current = prepared.release, prepared.found.latest
        console.fact("version", release.text)
        console.fact("commit", release.commit)
        console.fact("previous", current.version if current else None)
        prepare.build(target, snapshot, prepared.builds)
        stack = render.render(target, snapshot, prepared.found,
                              render.references(target, prepared.builds))
        running = Running.read(target, current)
        if current and running.is_exactly(stack):
            verdict.confirm_unchanged(target, current)
        else:
            with noted(target.engine, release.text, release.commit, began) as change:
                update(target, Wanted(stack, release, prepared.revisions, budget), running,
                       change, held)
    verdict.say_where(target, stack)


@in_one_line
def build_images() -> None:
    """Build this checkout's images, as the first half of a deploy does."""
    target = Target.reach("./fab build")
    console.heading("Build")
    with lock.hold(target.engine), prepare.snapshot_of(target) as snapshot:
        prepare.build(target, snapshot, prepare.prepare(target, snapshot).builds)


def read_budget(text: str) -> float:
    """Return how many requests may fail during an update; any number by default."""
    if not re.fullmatch("[0-9]{0,9}", text):
        raise Refused(f"--probe-budget={text!r}", "it should be a number of requests")
    return int(text) if text else math.inf
