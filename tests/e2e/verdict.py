"""Compare a deploy's report with Docker's state: a false report is worthless."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from stack.release.plan.diff import compare
from stack.swarm.names import RESTARTED_AT
from tests.e2e.site import Site
from tests.lab import Machine, Result

SERVICES = "docker stack services tally --quiet | xargs docker service inspect"
# Every task that should run now.
TASKS = "docker stack ps tally --quiet --no-trunc --filter desired-state=running | " \
    "xargs docker inspect --type=task"
COUNTS = "docker stack services tally --format '{{.Name}} {{.Replicas}}'"
# Fields of a container's definition. In others, `docker service inspect` fills in defaults that a
# task doesn't have.
COMPARED = ("Image", "Env", "Secrets", "Configs")
# What an unfinished migration may leave in the database: its sessions, its lock.
MIGRATING = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tally migrations'"
LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"


def report(done: Result) -> dict[str, Any]:
    """Return the report of a command with --json; it has to agree with the exit code."""
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["exit"] == done.code, said
    return said


def definitions(manager: Machine) -> dict[str, Any]:
    """Return each service's whole definition.

    A restarted update doesn't make a service different.
    """
    found = {service["Spec"]["Name"]: service["Spec"] for service in inspected(manager, SERVICES)}
    for definition in found.values():
        definition["Labels"].pop(RESTARTED_AT, None)
    return found


def tasks(manager: Machine) -> list[tuple[str, dict[str, Any]]]:
    """Return each task that should run now, with its service's name."""
    names = {service["ID"]: service["Spec"]["Name"] for service in inspected(manager, SERVICES)}
    return [(names[task["ServiceID"]], task) for task in inspected(manager, TASKS)]


def inspected(manager: Machine, line: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(manager.console(line).stdout)
    return found


def check_true(done: Result, manager: Machine, edges: Sequence[Site],
               before: Mapping[str, Any], version_before: str) -> None:
    """Check that the exit code is true for every service, task and edge node.

    After success the new version is everywhere. After a failure everything is as before: images,
    environment, secrets, numbers of tasks and the rest of each service's definition.
    """
    after, running = definitions(manager), Counter[str]()
    for name, task in tasks(manager):
        check_same(compared(after[name]["TaskTemplate"]), compared(task["Spec"]))
        assert task["Status"]["State"] == "running", (name, task["Status"])
        running[name] += 1
    for line in manager.console(COUNTS).stdout.splitlines():
        # Docker's own count of running tasks includes those of a lost node.
        assert line.split()[1].split("/")[1] == str(running[line.split()[0]]), line
    versions = {site.version() for site in edges}
    if done.code == 0:
        assert versions == {report(done)["version"]}
    else:
        check_same(before, after)
        assert versions == {version_before}


def compared(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a task's definition that its service's definition also has."""
    return {name: task["ContainerSpec"].get(name) for name in COMPARED}


def check_same(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Check that two definitions are equal; a failure names the fields that differ."""
    assert wanted == found, "\n".join(map(str, compare(wanted, found)))
