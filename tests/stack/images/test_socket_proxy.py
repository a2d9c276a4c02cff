"""A socket-proxy that stops breaks off no answer: Traefik would drop that service's routes."""

import signal
import threading
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from tests.files.dockerfile import last_stage
from tests.support import edge
from tests.support.edge import IMAGES, SwarmEngine
from tests.support.services import START_SECONDS, Server, wait_until

pytestmark = pytest.mark.service

TASKS = [{"ID": "one"}]


@pytest.fixture
def engine() -> SwarmEngine:
    engine = SwarmEngine({"tasks": TASKS})
    engine.ready.set()
    return engine


@pytest.fixture
def proxy(engine: SwarmEngine) -> Iterator[Server]:
    with edge.listening(engine) as port, edge.socket_proxy(port) as proxy:
        yield proxy


def stop(proxy: Server) -> None:
    """Tell the proxy to stop, as Docker does."""
    name = last_stage(IMAGES / "socket-proxy/Dockerfile")["STOPSIGNAL"].value
    proxy.process.send_signal(signal.Signals[name])


def connection(proxy: Server) -> HTTPConnection:
    return HTTPConnection("127.0.0.1", proxy.port, timeout=START_SECONDS)


def asked(link: HTTPConnection) -> int:
    """Ask for the tasks, and return the status of a whole answer."""
    link.request("GET", "/v1.45/tasks")
    answer = link.getresponse()
    answer.read()
    return answer.status


def test_a_request_in_progress_gets_its_whole_answer(proxy: Server, engine: SwarmEngine) -> None:
    engine.ready.clear()
    engine.asked.clear()
    statuses: list[int] = []
    client = threading.Thread(target=lambda: statuses.append(asked(connection(proxy))))
    client.start()
    engine.asked.wait(START_SECONDS)

    stop(proxy)
    wait_until(lambda: not edge.accepts(proxy.port), "the proxy accepts no more")
    engine.ready.set()
    client.join()

    assert statuses == [200]
    assert proxy.process.wait(START_SECONDS) == 0


def test_a_connection_is_still_accepted_at_first(proxy: Server) -> None:
    stop(proxy)

    assert asked(connection(proxy)) == 200


def test_a_kept_connection_is_closed_without_an_error(proxy: Server) -> None:
    link = connection(proxy)
    assert asked(link) == 200

    stop(proxy)
    proxy.process.wait(START_SECONDS)

    assert link.sock.recv(1) == b""
