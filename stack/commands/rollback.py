"""Restore an earlier release by command."""

import time

from stack import console, progress
from stack.commands import report
from stack.commands.one_line import in_one_line
from stack.errors import Refused
from stack.release import restore, schema_compatibility
from stack.release.restore import bring_in
from stack.release.target import Target
from stack.state import lock, releases, schema
from stack.swarm import services


def rollback(to: str = "", as_json: bool = False) -> None:
    """Restore the previous release, or the one of the version `to`."""
    with report.printed("rollback", as_json):
        _rollback(to)


@in_one_line
def _rollback(to: str) -> None:
    target = Target.reach("./fab rollback")
    with lock.hold(target.engine) as held:
        began, history = time.time(), releases.history(target.engine)
        earlier = releases.named(history, to) if to else \
            releases.to_restore(history, services.spec_hashes(target.engine))
        if earlier is None:
            raise Refused(f"no release {to} is recorded" if to else
                          "there is no earlier release to restore", "./fab releases")
        console.fact("version", earlier.version)
        console.fact("commit", earlier.commit)
        console.fact("previous", history[0].version)
        restore.check_restorable(target, earlier)
        ahead = schema_compatibility.check_rollback(earlier, schema.possible(target.engine))
        console.heading(f"Roll back to {earlier.version}")
        if ahead:
            progress.note(f"the schema stays at {ahead[-1].id}, ahead of it by {len(ahead)}; "
                          "no migration is marked as breaking older code")
        # However many tasks there were then: today's visitors need today's.
        replicas = history[0].stack.replicas
        bring_in(target, earlier.stack.with_replicas(replicas), earlier, history[0], began, held)
