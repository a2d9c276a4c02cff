"""Replace what serves and prove what came of it; give the last release back if that fails."""

import math
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import NoReturn

import requests
from docker.errors import DockerException

from stack import console, logs, probe, records, rollout
from stack.console import step
from stack.definition import Stack
from stack.engine import FAILURES
from stack.errors import INTERRUPTED, Locked, OperatorError, Refused, RestoreFailed, UpdateFailed
from stack.lock import Lock
from stack.probe import Report, Watch
from stack.records import Record
from stack.settings import DEFAULT_REPLICAS
from stack.target import Target


# Seconds for a task of the application: they are replaced one after the other.
A_TASK = 10
# The exit codes of a command that was told to end: by Ctrl-C, SIGHUP or SIGTERM.
INTERRUPTIONS = {INTERRUPTED, 129, 143}


def is_running(target: Target, current: Record, stack: Stack) -> bool:
    """Tell whether Swarm holds exactly this stack, unchanged since it was proven."""
    return current.content == stack.content \
        and records.spec_hashes(target.client) == current.specs


def confirm_unchanged(target: Target, current: Record) -> None:
    """Prove that what ran still runs; nothing is touched."""
    with step("schema"):
        pass
    for name in current.stack.services:
        with step(name):
            pass
    try:
        verdict(target, current.stack, current.version)
    except rollout.NotArrived as failure:
        logs.tell_cause(target, failure)
        raise Refused(f"nothing is to be changed, but not all is well: {failure.cause}",
                      "./fab status") from failure


def roll_out(target: Target, stack: Stack, wanted: str, budget: float = math.inf,
             fact: str = "probe") -> Report:
    """Replace what serves, while the probe looks on as a visitor; return what it met.

    The report has that as a `fact`, however it ends. Raises NotArrived also if more requests
    failed than the budget allows.
    """
    watch: Watch | None = None
    try:
        with probe.watching(target.edges(), stack.http_port) as watch:
            replace(target, stack, wanted)
    finally:
        if watch:
            met = watch.report()
            console.fact(fact, asdict(met))
            with step("probe") as current:
                current.found(str(met))
    if met.failures > budget:
        raise rollout.NotArrived(f"{met.failures} requests failed meanwhile, "
                                 f"the budget is {budget:.0f}")
    return met


def replace(target: Target, stack: Stack, wanted: str) -> None:
    """Hand the stack to Swarm and see it proven."""
    with step("update") as current:
        current.doing("replacing tasks, one at a time")
        rollout.apply(target.cli, stack, prune=True)
        rollout.wait(target.client, target.machine, stack, patience(target, stack))
        current.changed("every task is up to date, healthy and stayed so")
    verdict(target, stack, wanted)


def patience(target: Target, stack: Stack) -> float:
    """Return the seconds until an update is given up; each further task needs its own."""
    return target.settings.deploy_timeout + A_TASK * max(0, stack.replicas - DEFAULT_REPLICAS)


def verdict(target: Target, stack: Stack, wanted: str) -> None:
    """See every task running and the version served to visitors."""
    with step("verdict") as current:
        rollout.wait(target.client, target.machine, stack, patience(target, stack), held=0)
        rollout.prove(target.edges, stack.http_port, wanted)
        current.found(f"{wanted} runs and is served")


def require_still(held: Lock, again: str) -> None:
    """End where the lock was lost, or the way to it, after this command changed something.

    `again` is what to type then.
    """
    try:
        held.require()
    except Locked as error:
        raise RestoreFailed(f"in the middle of the update, {error.cause}",
                            f"./fab status, then {again}") from error
    except (DockerException, requests.RequestException) as error:
        raise RestoreFailed("in the middle of the update, the Swarm doesn't answer any more; it "
                            "goes on with what it was told, if it can",
                            f"./fab status when it does, then {again}") from error


def give_back(target: Target, failure: Exception, previous: Record | None) -> NoReturn:
    """Restore the whole previous release and end with the update's failure."""
    cause = failure.cause if isinstance(failure, OperatorError) else str(failure)
    if isinstance(failure, rollout.NotArrived):
        logs.tell_cause(target, failure)
    if previous is None:
        raise RestoreFailed(f"the update failed: {cause}; there is no earlier release to "
                            "go back to", "mend it, then ./fab deploy") from failure
    console.heading(f"Restore {previous.version}, as the update failed: {cause}")
    try:
        roll_out(target, previous.stack, previous.version, fact="restore_probe")
    except FAILURES as error:
        raise RestoreFailed(f"the update failed ({cause}) and so did restoring "
                            f"{previous.version} ({error})",
                            "docker stack ps tally --no-trunc, then ./fab rollback") from failure
    raise UpdateFailed(f"the update failed: {cause}; {previous.version} is restored and "
                       "proven", "mend it, then ./fab deploy") from failure


def check_restorable(target: Target, release: Record) -> None:
    """Refuse to go back to a release of which an image or a secret is gone."""
    for service in release.stack.services.values():
        ours = service["image"].startswith(f"{target.store.prefix}/")
        if ours and not target.store.has(service["image"]):
            raise Refused(f"the image {service['image']} of {release.version} is gone",
                          f"git checkout {release.commit[:12]} && ./fab deploy")
    known = {secret.name for secret in target.client.secrets.list()}
    for secret in release.stack.content["secrets"].values():
        if secret["name"] not in known:
            raise Refused(f"the secret {secret['name']} of {release.version} is gone",
                          f"git checkout {release.commit[:12]} && ./fab deploy")


@contextmanager
def telling_if_interrupted(remedy: str) -> Iterator[None]:
    """Say what an interruption leaves: Swarm goes on with what it was told.

    Whatever else ends an update half-way, a bug or an output that nobody reads any more,
    needs a person as well.
    """
    try:
        yield
    except OperatorError:
        raise
    except (KeyboardInterrupt, SystemExit) as interruption:
        code = interruption.code if isinstance(interruption, SystemExit) else INTERRUPTED
        with suppress(OSError, SystemExit):
            console.say(f"interrupted in the middle of the update: {remedy}")
        raise SystemExit(code if code in INTERRUPTIONS else RestoreFailed.exit_code) \
            from interruption
    except Exception as bug:
        traceback.print_exc()
        raise RestoreFailed(f"in the middle of the update, a bug: {type(bug).__name__}: {bug}",
                            remedy) from bug


def say_where(target: Target, stack: Stack) -> None:
    """Print the addresses that people open."""
    port = "" if stack.http_port == 80 else f":{stack.http_port}"
    # What was proven stays so if the Swarm can't be asked any more.
    with suppress(*FAILURES):
        hosts = ["localhost"] if target.fleet.local else target.edges()
        console.say(f"Tally runs at {' '.join(f'http://{host}{port}' for host in hosts)}")
