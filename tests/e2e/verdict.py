"""Compare what a deploy said with what Docker has: a report that can't be trusted is worthless."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.e2e.site import Site
from tests.lab import Machine, Result

# Each task that should run now: its service, its image as the service names it, its state.
TASKS = "docker stack ps tally --no-trunc --filter desired-state=running " \
    "--format '{{.Name}} {{.Image}} {{.CurrentState}}'"
SERVICES = "docker stack services tally --format '{{.Name}} {{.Replicas}} {{.Image}}' | sort"
ALL_DEFINITIONS = "docker stack services tally --quiet | xargs docker service inspect"


def report(done: Result) -> dict[str, Any]:
    """Return what a command with --json said, which has to agree with its exit code."""
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["exit"] == done.code, said
    return said


def digests(manager: Machine) -> dict[str, str]:
    """Return each service's image, as its definition pins it."""
    return {service["Spec"]["Name"]: service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
            for service in json.loads(manager.console(ALL_DEFINITIONS).stdout)}


def check_true(done: Result, manager: Machine, edges: Sequence[Site],
               before: dict[str, str], version_before: str) -> None:
    """See that the exit code is the truth about every service, task and edge node.

    Success means that the new version is everywhere; anything else that all is as it was.
    """
    after = digests(manager)
    tasks = [line.split(maxsplit=2) for line in manager.console(TASKS).stdout.splitlines()]
    for name, image, state in tasks:
        service = name.rpartition(".")[0]
        assert image.partition("@")[0] == after[service].partition("@")[0], (name, image)
        assert state.startswith("Running"), (name, state)
    running = Counter(name.rpartition(".")[0] for name, _, _ in tasks)
    for line in manager.console(SERVICES).stdout.splitlines():
        # Docker's own count of what runs has the tasks of a node that is lost.
        assert line.split()[1].split("/")[1] == str(running[line.split()[0]]), line
    versions = {site.version() for site in edges}
    if done.code == 0:
        assert versions == {report(done)["version"]}
    else:
        assert (after, versions) == (before, {version_before})
