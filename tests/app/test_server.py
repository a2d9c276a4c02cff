"""No byte from a stranger ends, blocks or deceives the server."""

import json
import os
import random
import re
import signal
import socket
import statistics
import string
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.app.conftest import migrated
from tests.support.production import Production, production, received, settings, status
from tests.support.services import (
    START_SECONDS, VISITOR_KEY, Database, Postgres, ServiceError, wait_until)

pytestmark = pytest.mark.service

# haproxy.cfg's timeout for a header, and how late a loaded machine may notice it.
HEADER_SECONDS, LATE_SECONDS = 5, 25
# What haproxy.cfg allows at once.
CONNECTIONS = 500
SEED = 20310
PATHS = (b"/%b", b"/static/%b", b"/?v=%b")
# What HAProxy, uWSGI, Werkzeug or the application reads.
HEADERS = (b"Host", b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Ssl", b"Cookie",
           b"Sec-Purpose", b"Accept-Encoding", b"If-Modified-Since")


@pytest.fixture(scope="module")
def long_running(
        postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Production]:
    with postgres_server.database("tally_in_production") as database:
        environ = migrated(database).environ(database.user)
        with production(tmp_path_factory.mktemp("production"), environ) as server:
            yield server


@pytest.fixture
def server(long_running: Production) -> Iterator[Production]:
    """The application as in its image; every worker has to outlive the test."""
    yield long_running
    assert long_running.probe().returncode == 0
    assert [line for line in long_running.log.splitlines()
            if "DAMN" in line or "HARAKIRI" in line] == []


def get(path: bytes = b"/version", *headers: bytes) -> bytes:
    """Return a request with these header lines."""
    return b"\r\n".join([b"GET %b HTTP/1.1" % path, b"Host: localhost", *headers, b"", b""])


def visits(answer: bytes) -> int:
    """Return how often the visitor of a page has come."""
    found = re.search(rb"You have visited this page (\d+) time", answer)
    assert found, answer
    return int(found[1])


def test_no_byte_in_the_forwarded_scheme_ends_a_worker(server: Production) -> None:
    lines = [b"X-Forwarded-Proto: %c" % byte for byte in range(256)]
    answers = {status(server.ask(get(b"/version", *before, line)))
               for line in lines[:128] for before in ([], [b"X-Forwarded-Proto: http"])}
    refused = {status(server.ask(get(b"/version", *before, line, *after)))
               for line in lines[128:]
               for before, after in (([], []), ([b"X-Forwarded-Proto: http"], []),
                                     ([], [b"X-Forwarded-Proto: http"]))}

    assert answers <= {200, 400}
    assert refused == {400}


def test_slow_headers_hold_up_neither_a_visitor_nor_the_health_check(server: Production) -> None:
    slow = [server.connect() for _ in range(50)]
    for client in slow:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
    before = time.monotonic()
    answer, probe = server.ask(get(b"/")), server.probe()
    passed = time.monotonic() - before

    # Long before the first slow client is given up, even if that is on time.
    assert (status(answer), probe.returncode) == (200, 0)
    assert passed < HEADER_SECONDS
    for client in slow:
        client.close()


def test_a_header_that_trickles_is_given_up_in_time(server: Production) -> None:
    with server.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        ended = threading.Event()
        trickling = threading.Thread(target=trickle, args=(client, ended))
        trickling.start()
        before = time.monotonic()
        answer = received(client)
        passed = time.monotonic() - before
        ended.set()
        trickling.join()

    assert status(answer) == 408
    assert passed < HEADER_SECONDS + LATE_SECONDS


def trickle(client: socket.socket, ended: threading.Event) -> None:
    """Send a byte each quarter of a second until the server has given up."""
    try:
        while not ended.wait(0.25):
            client.sendall(b"a")
    except OSError:
        return


def test_the_health_check_passes_when_strangers_hold_every_connection(
        server: Production) -> None:
    held = [server.connect() for _ in range(CONNECTIONS + 100)]

    assert server.probe().returncode == 0
    for client in held:
        client.close()


@pytest.mark.parametrize(("length", "answered"), [(8000, 404), (9000, 414), (40_000, 414)])
def test_an_address_that_is_too_long_is_answered_with_414(
        server: Production, length: int, answered: int) -> None:
    answer = server.ask(get(b"/" + b"a" * length))

    assert status(answer) == answered
    assert b"cache-control: no-store" in answer


@pytest.mark.parametrize(
    ("length", "answered"), [(16_000, 200), (17_000, 431), (60_000, 431), (100_000, 400)])
def test_a_header_that_is_too_large_is_answered_with_431(
        server: Production, length: int, answered: int) -> None:
    assert status(server.ask(get(b"/version", b"X-Large: " + b"a" * length))) == answered


def test_a_header_with_underscores_is_no_alias_of_the_real_one(server: Production) -> None:
    real, alias = b"X-Forwarded-For: 192.0.2.1", b"X_Forwarded_For: 203.0.113.9"
    orders = ([real], [real, alias], [alias, real], [real, b"X-Forwarded_For: 203.0.113.9"])

    assert [visits(server.ask(get(b"/", *lines))) for lines in orders] == [1, 2, 3, 4]


def test_the_visitor_without_a_proxy_is_the_connections_address(server: Production) -> None:
    here = b"X-Forwarded-For: 127.0.0.1"
    first, second, third = (
        visits(server.ask(get(b"/", *lines))) for lines in ([], [here], []))

    assert (second, third) == (first + 1, first + 2)


def test_each_worker_is_connected_before_its_first_request(
        postgres_server: Postgres, postgres_database: Database, tmp_path: Path) -> None:
    database = migrated(postgres_database)
    with production(tmp_path, database.environ(database.user)) as server:
        workers = len(server.workers())
        assert workers > 1
        wait_until(lambda: sessions(postgres_server, database) == workers,
                   "each worker is connected")


def sessions(server: Postgres, database: Database) -> int:
    """Return how many connections the application has to its database."""
    with server.connect() as session:
        found = session.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = %s AND application_name = 'tally'",
            [database.url.rpartition("/")[2]]).fetchall()
    ((count,),) = found
    assert isinstance(count, int)
    return count


def test_a_server_that_is_still_connecting_ends_in_time(tmp_path: Path) -> None:
    with (socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as pool):
        port = silent.getsockname()[1]
        server = Production(tmp_path, settings(tmp_path) | {
            "TALLY_ENV": "production", "TALLY_VERSION": "1.4.0+57", "VISITOR_KEY": VISITOR_KEY,
            "DATABASE_URL": f"postgresql://tally_app@127.0.0.1:{port}/tally"})
        server.prepare()
        starting = pool.submit(server.start)
        silent.accept()
        assert server.stop() == 0
        assert isinstance(starting.exception(START_SECONDS), ServiceError)


def test_workers_start_while_the_database_refuses_them(
        postgres_server: Postgres, postgres_database: Database, tmp_path: Path) -> None:
    database = migrated(postgres_database)
    name = database.url.rpartition("/")[2]
    log = tmp_path / "log"

    def let_in() -> None:
        wait_until(lambda: log.exists() and "no connection yet" in log.read_text(),
                   "a worker is refused")
        postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    with ThreadPoolExecutor(1) as pool:
        postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        pool.submit(let_in)
        with production(tmp_path, database.environ(database.user)) as server:
            assert visits(server.ask(get(b"/"))) == 1
            assert server.log.count("no connection yet") == len(server.workers())


@contextmanager
def visit_held(server: Production, postgres_server: Postgres, database: Database
               ) -> Iterator[Future[bytes]]:
    """Yield the answer of a visit that waits for a lock in the database during the block."""
    name = database.url.rpartition("/")[2]
    with (ThreadPoolExecutor(1) as pool, postgres_server.connect(name) as session,
          session.transaction()):
        session.execute("LOCK TABLE visitors")
        answer = pool.submit(server.ask, get(b"/"))
        wait_until(lambda: is_waiting(postgres_server), "the visit waits for the lock")
        yield answer


def test_a_request_in_progress_is_answered_when_the_server_stops(
        postgres_server: Postgres, postgres_database: Database, tmp_path: Path) -> None:
    database = migrated(postgres_database)
    with production(tmp_path, database.environ(database.user)) as server:
        begun = server.connect()
        begun.sendall(get(b"/version")[:-2])
        with visit_held(server, postgres_server, database) as answer:
            server.process.terminate()
            # As Traefik needs it, to ask another task: not accepted and then broken off.
            wait_until(lambda: not server.accepts(), "new connections are refused")
            begun.sendall(b"\r\n")
            assert status(received(begun)) == 200
        assert visits(answer.result()) == 1
        assert server.process.wait(START_SECONDS) == 0


def test_a_stopping_server_serves_new_visitors_while_it_drains(
        environ: dict[str, str], tmp_path: Path) -> None:
    with production(tmp_path, environ | {"DRAIN_SECONDS": "2"}) as server:
        before = time.monotonic()
        server.process.terminate()
        answers = [server.ask(get()) for _ in range(20)]
        assert time.monotonic() - before < 2, "the machine is too slow for this test"
        assert {status(answer) for answer in answers} == {200}
        assert server.process.wait(START_SECONDS) == 0
        assert time.monotonic() - before >= 2


@pytest.mark.parametrize("sent", [signal.SIGUSR1, signal.SIGTERM, signal.SIGKILL])
def test_the_server_ends_with_haproxy(
        environ: dict[str, str], tmp_path: Path, sent: signal.Signals) -> None:
    with production(tmp_path, environ) as server:
        os.kill(server.haproxy, sent)
        assert server.process.wait(START_SECONDS) == 0
        assert "goodbye to uWSGI" in server.log


def test_the_server_ends_with_uwsgi_and_says_so(
        environ: dict[str, str], tmp_path: Path) -> None:
    with production(tmp_path, environ) as server:
        os.kill(server.uwsgi, signal.SIGKILL)
        assert server.process.wait(START_SECONDS) == 128 + signal.SIGKILL
        wait_until(lambda: not Path(f"/proc/{server.haproxy}").exists(), "HAProxy ends")


def test_a_visit_is_not_repeated_when_its_worker_dies(
        postgres_server: Postgres, postgres_database: Database, tmp_path: Path) -> None:
    database = migrated(postgres_database)
    with production(tmp_path, database.environ(database.user)) as server:
        with visit_held(server, postgres_server, database) as answer:
            # The request is in one of them.
            for worker in server.workers():
                os.kill(worker, signal.SIGKILL)
            assert status(answer.result()) == 502
        # The session of the killed worker may still have been waiting.
        wait_until(lambda: not is_waiting(postgres_server), "nobody waits for the lock")
        wait_until(server.is_ready, "the workers are replaced")
        assert visits(server.ask(get(b"/"))) <= 2


def test_only_requests_that_the_application_never_sees_are_logged_as_refused(
        environ: dict[str, str], tmp_path: Path) -> None:
    url = environ["DATABASE_URL"]
    with production(tmp_path, environ) as server:
        for sent in (get(b"/" + b"a" * 9000), get(b"/", b"X-Large: " + b"a" * 17_000),
                     get(b"/", b"X-Forwarded-Proto: \xff"), b"\0\r\n\r\n"):
            server.ask(sent)
        for sent in (get(), get(b"/nowhere"), get(b"/").replace(b"localhost", b"a..b")):
            server.ask(sent)
        os.rename(url.removeprefix("sqlite:///"), tmp_path / "gone")
        assert status(server.ask(get(b"/"))) == 503
        server.stop()
        lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
        told = [(line["level"], line["status"]) for line in lines if line["message"] == "refused"]

        assert told == [("warning", code) for code in (414, 431, 400, 400)]
        assert max(map(len, server.log.splitlines())) < 2000


def is_waiting(server: Postgres) -> bool:
    """Return whether a session waits for a lock."""
    with server.connect() as session:
        found = session.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    return found != (0,)


def junk(chance: random.Random) -> bytes:
    """Return up to nine letters and signs."""
    return "".join(chance.choices(string.printable[:94], k=chance.randrange(10))).encode()


def strange_requests(chance: random.Random) -> list[bytes]:
    """Return requests with each byte once in every place, in any order."""
    strange = []
    for byte in range(256):
        raw, quoted = bytes([byte]), b"%%%02X" % byte
        text = junk(chance) + raw + junk(chance)
        strange += [get(path % quoted) for path in PATHS]
        strange += [get(path % text) for path in PATHS]
        strange += [get(b"/", name + b": " + text) for name in HEADERS]
        strange += [get(b"/", b"X-" + text + b": a"), text + get()]
    chance.shuffle(strange)
    return strange


def test_no_byte_in_any_place_ends_or_blocks_the_server(server: Production) -> None:
    strange = strange_requests(random.Random(SEED))

    def ask(sent: bytes) -> tuple[int, float]:
        before = time.monotonic()
        return status(server.ask(sent)), time.monotonic() - before

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, strange))
    seconds = [taken for _, taken in answers]
    unfit = [(code, sent) for (code, _), sent in zip(answers, strange) if not 200 <= code < 500]

    assert len(strange) >= 2000
    assert unfit == []
    # Five seconds, unless the machine is so loaded that everything is slow.
    assert max(seconds) < max(5, 50 * statistics.median(seconds))
