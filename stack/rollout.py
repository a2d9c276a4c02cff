"""Hand a stack to Swarm and find out what really became of it."""

import re
import time
from dataclasses import dataclass
from typing import Any

import docker
import requests
from docker.errors import DockerException

from stack import console, records
from stack.definition import Stack
from stack.engine import DockerCli
from stack.errors import OperatorError
from stack.machine import Completed, LocalMachine
from stack.swarm import STACK

NO_ENGINE = "unix:///nonexistent"
# Swarm's own words for an update that did not arrive.
BROKEN_UPDATES = {"paused", "rollback_started", "rollback_paused", "rollback_completed"}
# Tasks that ended by themselves, rather than being told to.
BROKEN_TASKS = {"failed", "rejected", "orphaned"}
GIVEN_UP_AFTER = 3  # such tasks of a new service, which has no update to break
HELD = 5.0  # seconds for which everything must stay up to be believed


class NotArrived(OperatorError):
    """The stack isn't running as wanted; carries what to show of the culprit's log."""

    def __init__(self, cause: str, log: list[str]) -> None:
        super().__init__(cause)
        self.log = log


@dataclass(frozen=True)
class Progress:
    """One service's way to what is wanted of it.

    `broken` says why it can't arrive any more; `task` is the one to blame.
    """

    name: str
    running: int
    wanted: int
    ids: frozenset[str] = frozenset()
    settled: bool = False
    broken: str = ""
    task: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.running}/{self.wanted}"


def apply(cli: DockerCli, stack: Stack, *, prune: bool) -> None:
    """Hand the stack to Swarm; returns when Swarm has accepted it, not when it runs.

    Raises NotArrived if Docker refuses it, or would leave out part of it.
    """
    options = ["--prune"] if prune else []
    # Images are local here: asking a registry for their digests would only fail.
    command = ("deploy", "--compose-file=-", "--resolve-image=never", *options, STACK)
    done = cli.stack(*command, stdin=stack.text())
    for _ in range(3):
        # Swarm itself changed a service meanwhile, as it does when it rolls back.
        if done.ok or "out of sequence" not in done.stderr:
            break
        done = cli.stack(*command, stdin=stack.text())
    said = (done.stdout + done.stderr).strip().splitlines()
    if not done.ok:
        raise NotArrived(f"docker stack deploy refused the stack: {done.last_line}", said[-10:])
    if ignored := _left_out(done):
        raise NotArrived(f"docker stack deploy left something out: {ignored}", said)


def check(cli: DockerCli, stack: Stack) -> str:
    """Return what Docker has against the stack, or "" if it would take all of it.

    The command reads and checks the whole file before it looks for an engine, and
    finds none here. Unlike `stack config` it also tells what it would leave out,
    and every version of the CLI has it.
    """
    done = cli.stack("deploy", "--compose-file=-", STACK, stdin=stack.text(), host=NO_ENGINE)
    ignored = _left_out(done)
    if ignored or not re.search("connect to the docker", done.stderr, re.IGNORECASE):
        return ignored or done.last_line
    return ""


def _left_out(done: Completed) -> str:
    """Return Docker's warning that it leaves something of a stack file out, or ""."""
    said = (done.stdout + done.stderr).splitlines()
    return next((line for line in said if line.lower().startswith("ignoring")), "")


def wait(client: docker.DockerClient, cli: DockerCli, stack: Stack, timeout: float,
         held: float = HELD) -> None:
    """Wait until every service runs as wanted, and stays so for `held` seconds.

    Raises NotArrived at the first service that can't, or after `timeout` seconds.
    """
    deadline, steady_since = time.monotonic() + timeout, time.monotonic()
    seen: frozenset[str] = frozenset()
    with console.OUT.status("waiting for the tasks") as status:
        while True:
            now = look(client, stack)
            status.update("waiting: " + ", ".join(map(str, now)))
            _give_up_if_broken(cli, now)
            ids = frozenset().union(*(service.ids for service in now))
            if ids != seen or not all(service.settled for service in now):
                seen, steady_since = ids, time.monotonic()
            elif time.monotonic() - steady_since >= held:
                return
            if time.monotonic() > deadline:
                _give_up_late(client, cli, now, timeout)
            time.sleep(0.5)


def look(client: docker.DockerClient, stack: Stack) -> list[Progress]:
    """Look at every service; an engine that doesn't answer just now leaves them unsettled."""
    try:
        return [progress(client, name) for name in stack.services]
    except (DockerException, requests.RequestException):
        return [Progress(name, 0, 0) for name in stack.services]


def _give_up_if_broken(cli: DockerCli, now: list[Progress]) -> None:
    for service in now:
        if service.broken:
            raise NotArrived(f"{service.name}: {service.broken}", task_log(cli, service.task))


def _give_up_late(client: docker.DockerClient, cli: DockerCli, now: list[Progress],
                  timeout: float) -> None:
    late = [service for service in now if not service.settled]
    reasons = [f"{service} ({_why(client, service)})" for service in late] or ["tasks come and go"]
    raise NotArrived(f"not steady after {timeout:.0f} s: {'; '.join(reasons)}",
                     task_log(cli, late[0].task) if late else [])


def _why(client: docker.DockerClient, service: Progress) -> str:
    if not service.task:
        return "it has no task that is up to date"
    try:
        status = client.api.inspect_task(service.task)["Status"]
    except (DockerException, requests.RequestException) as error:
        return f"the engine doesn't answer: {type(error).__name__}"
    return f"{status['State']}: {status.get('Err') or status.get('Message', '')}"


def progress(client: docker.DockerClient, name: str) -> Progress:
    """Look at one service of the stack, as Swarm has it now."""
    service = client.api.inspect_service(f"{STACK}_{name}")
    tasks = client.api.tasks(filters={"service": service["ID"]})
    template = _comparable(service["Spec"]["TaskTemplate"])
    current = [task for task in tasks if _comparable(task["Spec"]) == template]
    wanted = _wanted(client, service)
    running = frozenset(task["ID"] for task in tasks if task["DesiredState"] == "running"
                        and task["Status"]["State"] == "running")
    up_to_date = running & {task["ID"] for task in current}
    update = (service.get("UpdateStatus") or {}).get("State", "")
    suspects = _blamed(service, tasks) if update in BROKEN_UPDATES else current
    broken = _broken(service, update, suspects)
    latest = max(current, key=lambda task: str(task["CreatedAt"]), default=None)
    culprit = _culprit(suspects) or latest
    return Progress(
        name, len(up_to_date), wanted, running,
        settled=len(up_to_date) == len(running) == wanted and update in {"", "completed"},
        broken=broken, task=culprit["ID"] if culprit else "")


def _wanted(client: docker.DockerClient, service: dict[str, Any]) -> int:
    """Return how many tasks a service should have; a global one has one on each fitting node."""
    mode = service["Spec"]["Mode"]
    if "Replicated" in mode:
        return int(mode["Replicated"]["Replicas"])
    status = client.api.get(f"{client.api.base_url}/v{client.api.api_version}/services",
                            params={"status": "true",
                                    "filters": f'{{"id": ["{service["ID"]}"]}}'}).json()
    return max(1, int(status[0]["ServiceStatus"]["DesiredTasks"]))


def _broken(service: dict[str, Any], update: str, suspects: list[dict[str, Any]]) -> str:
    culprit = _culprit(suspects)
    cause = ""
    if culprit:
        cause = culprit["Status"].get("Err") or culprit["Status"].get("Message", "")
    if update in BROKEN_UPDATES:
        message = service["UpdateStatus"].get("Message", update)
        return f"{cause or message} (Swarm's update: {update.replace('_', ' ')})"
    failures = [task for task in suspects if task["Status"]["State"] in BROKEN_TASKS]
    if not update and len(failures) >= GIVEN_UP_AFTER:
        return f"{len(failures)} tasks in a row ended: {cause}"
    return ""


def _blamed(service: dict[str, Any], tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the task that Swarm gives as the reason for giving an update up.

    Its definition isn't the service's any more, once Swarm has gone back.
    """
    named = re.search(r"task (\w{25})", service["UpdateStatus"].get("Message", ""))
    return [task for task in tasks if named and task["ID"] == named[1]]


def _culprit(tasks: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the task that failed last, or None."""
    broken = [task for task in tasks if task["Status"]["State"] in BROKEN_TASKS]
    return max(broken, key=lambda task: str(task["Status"]["Timestamp"]), default=None)


def _comparable(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a task's definition without what Swarm fills in for a task."""
    return {key: value for key, value in spec.items() if key not in {"Networks", "Runtime"}}


def task_log(cli: DockerCli, task: str, lines: int = 20) -> list[str]:
    """Return the last lines that a task wrote."""
    if not task:
        return []
    done = LocalMachine().run(cli.service_logs("--raw", f"--tail={lines}", task), timeout=20)
    return (done.stdout + done.stderr).strip().splitlines()


def serving_version(port: int) -> str:
    """Return the version that answers through Traefik here, or why none does."""
    with requests.Session() as session:
        # A proxy for the way out must not be asked for this machine.
        session.trust_env = False
        try:
            answer = session.get(f"http://127.0.0.1:{port}/version", timeout=5)
            answer.raise_for_status()
            return str(answer.json()["version"])
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            return f"no version ({type(error).__name__})"


def prove(port: int, version: str, timeout: float = 20) -> None:
    """Wait until Traefik serves this version, as its visitors would see it.

    Raises NotArrived after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while (found := serving_version(port)) != version:
        if time.monotonic() > deadline:
            raise NotArrived(f"http://127.0.0.1:{port}/version answers {found}, "
                             f"not {version}", [])
        time.sleep(0.3)


def tasks_of(client: docker.DockerClient) -> frozenset[str]:
    """Return the ids of the stack's running tasks."""
    return frozenset(
        task["ID"] for service in records.services(client)
        for task in service.tasks(filters={"desired-state": "running"}))
