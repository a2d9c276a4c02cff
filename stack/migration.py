"""Bring the schema up to date with a Swarm job that runs the new image.

The job is the app's own definition with x-migrate laid over it, made once a
release and removed when it has ended.
"""

import time
from contextlib import suppress
from typing import Any

import docker
import requests
from docker.errors import DockerException, NotFound
from docker.types import (
    ContainerSpec, DriverConfig, Healthcheck, Mount, NetworkAttachmentConfig, Resources,
    RestartPolicy, SecretReference, ServiceMode, TaskTemplate)
from docker.utils import parse_bytes

from stack import console, engine
from stack.definition import Stack
from stack.engine import FAILURES
from stack.errors import MigrationFailed, Refused
from stack.machine import Machine
from stack.progress import ENDED
from stack.swarm import STACK
from stack.target import Target
from stack.task_logs import Reader
from stack.version import Version

# What the job takes from the app, and what only a running service needs. Any
# other key is refused: the two must not differ by something overlooked.
TAKEN = {"image", "command", "user", "environment", "secrets", "networks", "volumes",
         "read_only", "cap_drop", "logging", "deploy"}
NOT_FOR_A_JOB = {"healthcheck", "ports", "stop_grace_period"}
LABEL = "tally.migration"
CONTAINER_LABEL = "tally.migration.task"
# A container may be gone already, or going: newer engines clean up themselves.
REMOVE_CONTAINERS = (f"docker ps --all --quiet --filter label={CONTAINER_LABEL} | "
                     "xargs --no-run-if-empty docker rm --force > /dev/null 2>&1; true")
REMOVAL_TIMEOUT = 60  # seconds
# Seconds from one look at the job to the next, and after one that nobody answered.
POLL, SILENT_POLL = 0.1, 1.0
# Seconds after which a log is told as it comes, and from one look at it to the next: a job that
# changes nothing has ended before.
PATIENCE, LOG_POLL = 3.0, 1.0


def run(target: Target, stack: Stack, version: Version) -> str:
    """Run the migration to its end and return its log's last line.

    The log of a job that takes long is printed as it comes. Raises MigrationFailed, after
    printing the job's log, also after DEPLOY_TIMEOUT; the running release is untouched then.
    """
    client, machine = target.client, target.machine
    name = f"{STACK}_migrate-{version.tag.replace('.', '-')}"
    remove_all(client, machine)
    service = client.api.create_service(
        task_template(client, stack), name=name,
        # Not the stack's own label: Docker 20.10 never forgets a removed job's tasks
        # (moby#44312), and `docker stack ps` is to show what runs.
        labels={LABEL: version.tag},
        mode=ServiceMode("replicated-job", replicas=1, concurrency=1))
    log = Log(Reader(target, "migration", {"service": service["ID"]}))
    try:
        deadline = time.monotonic() + target.settings.deploy_timeout
        state, cause = _wait(client, machine, service["ID"], deadline, log)
        log.complete()
    finally:
        # What can't be removed now is by the next migration; how this one ended matters more.
        with suppress(*FAILURES):
            remove_all(client, machine)
    if state != "complete":
        log.tell(most=40)
        raise MigrationFailed(f"the migration {state} ({cause}); the running release is untouched",
                              "mend the migration, then ./fab deploy")
    log.tell_rest()
    return log.lines[-1] if log.lines else "done"


def task_template(client: docker.DockerClient, stack: Stack) -> TaskTemplate:
    """Return the job's task: the stack's app as the migration runs it."""
    job = stack.migrate
    unknown = job.keys() - TAKEN - NOT_FOR_A_JOB
    if unknown:
        raise Refused(f"docker-stack.yml: services.app.{min(unknown)}: the migration's job "
                      "doesn't know it", "teach it to stack/migration.py")
    logging = job["logging"]
    return TaskTemplate(
        ContainerSpec(
            job["image"], args=job["command"], user=job["user"],
            env=[f"{key}={value}" for key, value in job["environment"].items()],
            secrets=_secrets(client, stack, job), read_only=job["read_only"],
            cap_drop=job["cap_drop"], mounts=[_tmpfs(volume) for volume in job["volumes"]],
            labels={CONTAINER_LABEL: "yes"},
            # As process 1 it ignores SIGTERM, and its transaction ends with it in any case.
            stop_grace_period=1_000_000_000,
            # The image's health check asks a server that the job doesn't run.
            healthcheck=Healthcheck(test=["NONE"])),
        resources=_resources(job["deploy"]["resources"]),
        restart_policy=RestartPolicy(condition="none"),
        log_driver=DriverConfig(logging["driver"], options=logging["options"]),
        networks=[NetworkAttachmentConfig(f"{STACK}_{name}") for name in job["networks"]])


def _secrets(client: docker.DockerClient, stack: Stack,
             job: dict[str, Any]) -> list[SecretReference]:
    ids = {secret.name: str(secret.id) for secret in client.secrets.list()}
    names = {key: value["name"] for key, value in stack.content["secrets"].items()}
    if any(isinstance(use, str) for use in job["secrets"]):
        raise Refused("docker-stack.yml: services.app.secrets: the migration's job knows only "
                      "the long form", "write source, target, uid, gid and mode")
    return [SecretReference(ids[names[use["source"]]], names[use["source"]], use["target"],
                            uid=use["uid"], gid=use["gid"], mode=use["mode"])
            for use in job["secrets"]]


def _tmpfs(volume: dict[str, Any]) -> Mount:
    if volume["type"] != "tmpfs":
        raise Refused(f"docker-stack.yml: services.app.volumes: {volume['target']}: "
                      "the migration's job knows only tmpfs")
    return Mount(volume["target"], None, type="tmpfs", tmpfs_size=volume["tmpfs"]["size"])


def _resources(given: dict[str, dict[str, Any]]) -> Resources:
    limits, reservations = given["limits"], given["reservations"]
    resources = Resources(cpu_limit=int(float(limits["cpus"]) * 1_000_000_000),
                          mem_limit=int(parse_bytes(limits["memory"])),
                          mem_reservation=int(parse_bytes(reservations["memory"])))
    resources["Limits"]["Pids"] = limits["pids"]
    return resources


def _wait(client: docker.DockerClient, machine: Machine, service: str, deadline: float,
          log: "Log") -> tuple[str, str]:
    """Return how the job's task ended and why, or "timed out" at the deadline.

    An engine that doesn't answer just now is asked again, until there is no way to any.
    """
    state, cause = "new", ""
    while time.monotonic() < deadline:
        tasks, pause = list[dict[str, Any]](), SILENT_POLL
        with suppress(DockerException, requests.RequestException):
            tasks, pause = client.api.tasks(filters={"service": service}), POLL
        for task in tasks:
            state = task["Status"]["State"]
            cause = task["Status"].get("Err") or task["Status"].get("Message", "")
            if state in ENDED:
                return state, cause
        if not machine.alive:
            return "was lost sight of", "no manager answers any more, and it may go on"
        log.follow()
        time.sleep(pause)
    return "timed out", f"its task was {state}: {cause}"


class Log:
    """What the job has said, as far as that can be fetched: how it ended matters more."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.lines: list[str] = []
        self.unread: list[str] = []
        self._told = 0
        self._next = time.monotonic() + PATIENCE

    def follow(self) -> None:
        """Print what is new, from time to time."""
        if time.monotonic() < self._next:
            return
        with suppress(*FAILURES):
            self._read()
        self.tell()
        self._next = time.monotonic() + LOG_POLL

    def complete(self) -> None:
        """Read the rest, or take in why that can't be done."""
        try:
            self._read()
            self.unread = list(self._reader.unread.values())
        except FAILURES as error:
            self.unread = [engine.cause_of(error)]

    def tell(self, most: int = 200) -> None:
        """Print what wasn't printed yet, of much the last lines, and why the rest is missing."""
        console.block(self.lines[self._told:][-most:])
        console.block([f"its log can't be read: {cause}" for cause in self.unread])
        self._told = len(self.lines)

    def tell_rest(self) -> None:
        """Print what is missing of what was printed as it came, if anything was."""
        if self._told or self.unread:
            self.tell()

    def _read(self) -> None:
        self.lines += [line.text for line in self._reader.read()]


def remove_all(client: docker.DockerClient, *machines: Machine) -> None:
    """Remove every migration's job, also one that a killed command left running.

    Docker 20.10 leaves their containers, which would keep the images in use.
    """
    for service in client.services.list(filters={"label": LABEL}):
        with suppress(NotFound):
            service.remove()
    for machine in machines:
        machine.must(["sh", "-c", REMOVE_CONTAINERS], timeout=REMOVAL_TIMEOUT)
