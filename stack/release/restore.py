"""Restore a proven release."""

from contextlib import suppress
from typing import NoReturn

from stack import progress
from stack.engine.failures import EngineError
from stack.errors import OperatorError, Refused, RestoreFailed, UpdateFailed
from stack.release import interruption, prepare, rollout, verdict
from stack.release.failure import show_cause
from stack.release.replace import roll_out
from stack.release.target import Target
from stack.state import lock, releases
from stack.state.failed_changes import Change, noted
from stack.state.lock import Lock
from stack.state.releases import Record
from stack.swarm.stackfile import Stack

# The command that completes an interrupted rollback or scale.
AGAIN = "the same command again"


def bring_in(target: Target, stack: Stack, release: Record, last: Record, began: float,
             held: Lock, *, replaces: bool = False) -> None:
    """Roll out an existing release and record it; restore the `last` one on failure.

    If it `replaces` that, the new record takes the place of the old one.
    """
    prepare.check_placement(target, stack, migrates=False)
    held.require()
    with noted(target.engine, release.version, release.commit, began) as change:
        _bring_in(target, stack, release, last, change, held)
    if replaces:
        # The release is proven, whether or not the old record remains.
        with suppress(EngineError):
            releases.forget(target.engine, last)
    verdict.say_where(target, stack)


def _bring_in(target: Target, stack: Stack, release: Record, last: Record, change: Change,
              held: Lock) -> None:
    with interruption.reporting_interruption(f"{AGAIN} completes it"):
        try:
            roll_out(target, stack, release.version, keep=change.keep_probe)
        except OperatorError as failure:
            interruption.require_still(held, AGAIN)
            restore_previous(target, failure, last)
    interruption.require_still(held, AGAIN)
    with interruption.recording(release.version, "./fab status"):
        releases.save(target.engine, releases.make(
            target.engine, version=release.version, commit=release.commit, who=lock.whoami(),
            began=change.began, stack=stack, probe=change.probe, schema=release.schema))


def restore_previous(target: Target, failure: OperatorError, previous: Record | None) -> NoReturn:
    """Restore the whole previous release, then raise the update's failure."""
    if isinstance(failure, rollout.NotArrived):
        show_cause(target, failure)
    if previous is None:
        raise RestoreFailed(f"the update failed: {failure.cause}; there is no earlier release to "
                            "restore", "fix it, then ./fab deploy") from failure
    progress.heading(f"Restore {previous.version} (the update failed: {failure.cause})")
    try:
        roll_out(target, previous.stack, previous.version,
                 keep=lambda met: progress.fact("restore_probe", met))
    except OperatorError as error:
        raise RestoreFailed(f"the update failed ({failure.cause}) and so did restoring "
                            f"{previous.version} ({error})",
                            "docker stack ps tally --no-trunc, then ./fab rollback") from failure
    raise UpdateFailed(f"the update failed: {failure.cause}; {previous.version} is restored and "
                       "proven", "fix it, then ./fab deploy") from failure


def check_restorable(target: Target, release: Record) -> None:
    """Refuse to restore a release if one of its images or secrets is gone."""
    for service in release.stack.services.values():
        ours = service["image"].startswith(f"{target.store.prefix}/")
        if ours and not target.store.has(service["image"]):
            raise Refused(f"the image {service['image']} of {release.version} is gone",
                          f"git checkout {release.commit[:12]} && ./fab deploy")
    known = {secret.name for secret in target.engine.secrets.list()}
    for secret in release.stack.content["secrets"].values():
        if secret["name"] not in known:
            raise Refused(f"the secret {secret['name']} of {release.version} is gone",
                          f"git checkout {release.commit[:12]} && ./fab deploy")
