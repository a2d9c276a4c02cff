"""Verify that the running release is healthy and served to visitors."""

from collections.abc import Callable
from contextlib import suppress

import requests

from stack import progress, waiting
from stack.errors import OperatorError, Refused
from stack.release import rollout
from stack.release.failure import show_cause
from stack.release.probe import PATIENCE, is_answered
from stack.release.rollout import NotArrived, patience
from stack.release.target import Target
from stack.state.releases import Record
from stack.swarm.stackfile import Stack

# Bytes: more than the page has.
LARGE = 8192


def confirm_unchanged(target: Target, current: Record) -> None:
    """Verify the running release without changing anything."""
    for name in ("schema", *current.stack.services):
        progress.unchanged(name)
    try:
        verdict(target, current.stack, current.version)
    except rollout.NotArrived as failure:
        show_cause(target, failure)
        raise Refused(f"nothing to deploy, but the running release is unhealthy: {failure.cause}",
                      "./fab status") from failure


def verdict(target: Target, stack: Stack, wanted: str) -> None:
    """Verify that every task runs and that visitors get this version."""
    with progress.step("verdict") as current:
        rollout.wait(target.engine, target.machine, stack, patience(target, stack), held=0)
        prove(target.edges, stack.http_port, wanted, times=stack.replicas)
        current.found(f"{wanted} is running and served")


def say_where(target: Target, stack: Stack) -> None:
    """Print the site's addresses."""
    port = "" if stack.http_port == 80 else f":{stack.http_port}"
    # The release stays proven even if the Swarm can't be reached now.
    with suppress(OperatorError):
        hosts = ["localhost"] if target.fleet.local else target.edges()
        progress.line(f"Tally runs at {' '.join(f'http://{host}{port}' for host in hosts)}")


def serving_version(host: str, port: int) -> str:
    """Return the version that a node serves through Traefik, or why there is none."""
    with requests.Session() as session:
        # An outbound proxy must not be used for our own machines.
        session.trust_env = False
        try:
            answer = session.get(f"http://{host}:{port}/version", timeout=5)
            answer.raise_for_status()
            return str(answer.json()["version"])
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            return f"no version ({type(error).__name__})"


def prove(edges: Callable[[], list[str]], port: int, version: str, timeout: float = 20,
          times: int = 1) -> None:
    """Wait until every edge node serves this version to visitors, and large answers arrive.

    Calls `edges` on each try, as a node may leave during the wait. Requests a large answer so many
    `times` of each: Traefik asks the application's tasks in turn. Raises NotArrived after
    `timeout` seconds.
    """
    wrong = waiting.until(lambda: _wrong(edges, port, version, times), timeout,
                          done=lambda wrong: not wrong)
    if wrong:
        raise NotArrived("; ".join(wrong))


def _wrong(edges: Callable[[], list[str]], port: int, version: str, times: int) -> list[str]:
    """Return what is wrong for visitors, for each edge node."""
    try:
        return [line for host in edges() if (line := _amiss(host, port, version, times))]
    except OperatorError as error:
        return [f"cannot list the edge nodes: {error}"]


def _amiss(host: str, port: int, version: str, times: int) -> str:
    """Return what is wrong for visitors of this node, or ""."""
    if (found := serving_version(host, port)) != version:
        return f"http://{host}:{port}/version returns {found}, not {version}"
    if not is_answered(host, port):
        return f"{version} serves /version at {host}:{port}, but not the page"
    if not all(_is_large_answered(host, port) for _ in range(times)):
        return (f"small answers of http://{host}:{port} arrive, and large ones don't: the network "
                "between the machines may take smaller packets than they say (MTU)")
    return ""


def _is_large_answered(host: str, port: int) -> bool:
    """Return whether an answer of several packets arrives, whatever it is; no visit is counted."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            session.get(f"http://{host}:{port}/version?padding={LARGE}", timeout=PATIENCE)
            return True
        except requests.RequestException:
            return False
