"""Replace the running release while the probe watches the site."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict

from stack.progress import step
from stack.release import probe, rollout
from stack.release.probe import Watch
from stack.release.rollout import patience
from stack.release.target import Target
from stack.release.verdict import verdict
from stack.swarm.stackfile import Stack


def roll_out(target: Target, stack: Stack, wanted: str, keep: Callable[[Mapping[str, float]], None],
             budget: float = math.inf) -> None:
    """Replace the running release while the probe acts as a visitor.

    `keep` is given the report, whatever the result. Also raises NotArrived if more requests
    failed than the budget allows.
    """
    watch: Watch | None = None
    try:
        with probe.watching(target.edges(), stack.http_port) as watch:
            replace(target, stack, wanted)
    finally:
        if watch:
            met = watch.report()
            keep(asdict(met))
            with step("probe") as current:
                current.found(str(met))
    if met.failures > budget:
        raise rollout.NotArrived(f"{met.failures} requests failed, "
                                 f"the budget was {budget:.0f}")


def replace(target: Target, stack: Stack, wanted: str) -> None:
    """Deploy the stack to Swarm and verify it."""
    with step("update") as current:
        current.doing("replacing tasks, one at a time")
        rollout.apply(target.cli, stack, prune=True)
        rollout.wait(target.engine, target.machine, stack, patience(target, stack))
        current.changed("all tasks updated, healthy and stable")
    verdict(target, stack, wanted)
