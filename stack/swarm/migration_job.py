"""Define and create the Swarm job that migrates the schema: the app, overlaid with x-migrate."""

from typing import Any

from stack.engine.engine import Engine
from stack.engine.objects import Object
from stack.engine.sizes import in_bytes
from stack.errors import Refused
from stack.swarm.names import STACK
from stack.swarm.stackfile import Stack

# Keys that the job takes from the app, and keys that only a running service needs. Any
# other key is refused, so that nothing is overlooked.
TAKEN = {"image", "command", "user", "environment", "secrets", "networks", "volumes",
         "read_only", "cap_drop", "logging", "deploy"}
NOT_FOR_A_JOB = {"healthcheck", "ports", "stop_grace_period"}
LABEL = "tally.migration"
CONTAINER_LABEL = "tally.migration.task"
NAME = f"{STACK}_migrate"


def create(engine: Engine, stack: Stack, tag: str) -> str:
    """Create the job for a version, given as an image tag; return the service's id."""
    return engine.create_service({
        "Name": f"{NAME}-{tag.replace('.', '-')}",
        # Not the stack's own label: Docker 20.10 never forgets a removed job's tasks
        # (moby#44312), and `docker stack ps` should show what runs.
        "Labels": {LABEL: tag},
        "Mode": {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}},
        "TaskTemplate": task_template(engine, stack)})


def task_template(engine: Engine, stack: Stack) -> Object:
    """Return the job's task: the stack's app as the migration runs it."""
    job = stack.migrate
    unknown = job.keys() - TAKEN - NOT_FOR_A_JOB
    if unknown:
        raise Refused(f"docker-stack.yml: services.app.{min(unknown)}: unsupported key for the "
                      "migration job", "add it to stack/swarm/migration_job.py")
    logging = job["logging"]
    return {
        "ContainerSpec": {**_container(job), "Secrets": _secrets(engine, stack, job)},
        "Resources": _resources(job["deploy"]["resources"]),
        "RestartPolicy": {"Condition": "none"},
        "LogDriver": {"Name": logging["driver"], "Options": logging["options"]},
        "Networks": [{"Target": f"{STACK}_{name}"} for name in job["networks"]]}


def _container(job: dict[str, Any]) -> Object:
    return {
        "Image": job["image"], "Args": job["command"], "User": job["user"],
        "Env": [f"{key}={value}" for key, value in job["environment"].items()],
        "ReadOnly": job["read_only"], "CapabilityDrop": job["cap_drop"],
        "Mounts": [_tmpfs(volume) for volume in job["volumes"]],
        "Labels": {CONTAINER_LABEL: "yes"},
        # As process 1 it ignores SIGTERM; killing it ends its transaction either way.
        "StopGracePeriod": 1_000_000_000,
        # The image's health check needs a server, which the job doesn't run.
        "Healthcheck": {"Test": ["NONE"]}}


def _secrets(engine: Engine, stack: Stack, job: dict[str, Any]) -> list[Object]:
    ids = {secret.name: secret.id for secret in engine.secrets.list()}
    names = {key: value["name"] for key, value in stack.content["secrets"].items()}
    if any(isinstance(use, str) for use in job["secrets"]):
        raise Refused("docker-stack.yml: services.app.secrets: the migration job supports "
                      "only the long form", "write source, target, uid, gid and mode")
    return [{"SecretName": names[use["source"]], "SecretID": ids[names[use["source"]]],
             "File": {"Name": use["target"], "UID": use["uid"], "GID": use["gid"],
                      "Mode": use["mode"]}}
            for use in job["secrets"]]


def _tmpfs(volume: dict[str, Any]) -> Object:
    if volume["type"] != "tmpfs":
        raise Refused(f"docker-stack.yml: services.app.volumes: {volume['target']}: "
                      "the migration job supports only tmpfs")
    return {"Target": volume["target"], "Source": None, "Type": "tmpfs", "ReadOnly": False,
            "TmpfsOptions": {"SizeBytes": volume["tmpfs"]["size"]}}


def _resources(given: dict[str, dict[str, Any]]) -> Object:
    limits, reservations = given["limits"], given["reservations"]
    return {"Limits": {"NanoCPUs": int(float(limits["cpus"]) * 1_000_000_000),
                       "MemoryBytes": in_bytes(limits["memory"]), "Pids": limits["pids"]},
            "Reservations": {"MemoryBytes": in_bytes(reservations["memory"])}}
