"""Bring a release back that was proven before, whole."""

import time
from contextlib import suppress

import requests
from docker.errors import DockerException

from stack import (
    attempts, compatibility, console, engine, lock, preparation, proof, records, report)
from stack.definition import Stack
from stack.errors import Refused, RestoreFailed
from stack.lock import Lock
from stack.records import Record
from stack.target import Target

# What completes a rollback, or a scale, that was broken off.
AGAIN = "the same command again"


def rollback(to: str = "", as_json: bool = False) -> None:
    """Bring the release before this one back, whole, or the one of the version `to`."""
    with report.printed("rollback", as_json):
        _rollback(to)


@engine.in_one_line
def _rollback(to: str) -> None:
    target = Target.reach("./fab rollback")
    with lock.hold(target.client) as held:
        began, history = time.time(), records.history(target.client)
        earlier = records.named(history, to) if to else \
            records.to_restore(history, records.spec_hashes(target.client))
        if earlier is None:
            raise Refused(f"no release {to} is remembered" if to else
                          "there is no earlier release to go back to", "./fab releases")
        console.fact("version", earlier.version)
        console.fact("commit", earlier.commit)
        console.fact("previous", history[0].version)
        proof.check_restorable(target, earlier)
        ahead = compatibility.check_rollback(earlier, records.possible(target.client))
        console.heading(f"Roll back to {earlier.version}")
        if ahead:
            console.say(f"  note           the schema stays at {ahead[-1].id}, ahead of it by "
                        f"{len(ahead)}; no step is marked as breaking older code")
        # However many tasks there were then: today's visitors need today's.
        replicas = history[0].stack.replicas
        bring_in(target, earlier.stack.with_replicas(replicas), earlier, began, held)


def bring_in(target: Target, stack: Stack, release: Record, began: float, held: Lock,
             replaced: Record | None = None) -> None:
    """Roll out what was built before, and record it; give the last release back if that fails.

    Its record takes the place of one that it only `replaced`.
    """
    preparation.check_placement(target, stack, migrates=False)
    held.require()
    with attempts.noted(target.client, release.version, release.commit, began):
        _bring_in(target, stack, release, began, held)
    if replaced:
        # It serves, proven, with or without the record of before.
        with suppress(DockerException, requests.RequestException):
            records.forget(target.client, replaced)
    proof.say_where(target, stack)


def _bring_in(target: Target, stack: Stack, release: Record, began: float, held: Lock) -> None:
    last = records.history(target.client)[0]
    with proof.telling_if_interrupted(f"{AGAIN} completes it"):
        try:
            met = proof.roll_out(target, stack, release.version)
        except engine.FAILURES as failure:
            proof.require_still(held, AGAIN)
            proof.give_back(target, failure, last)
    proof.require_still(held, AGAIN)
    try:
        records.save(target.client, records.make(
            target.client, version=release.version, commit=release.commit, who=lock.whoami(),
            began=began, stack=stack, probe=met, schema=release.schema))
    except (DockerException, requests.RequestException) as error:
        raise RestoreFailed(f"{release.version} serves, proven, but could not be recorded "
                            f"({error})", "./fab status") from error
