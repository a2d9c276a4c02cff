"""On PostgreSQL a page is one statement and one round trip, and never counted twice."""

import contextlib
import re
import select
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from app import create_app
from app.figures import utc_today
from app.models import db
from tests.app.conftest import migrated
from tests.support.services import Database, Postgres, wait_until

pytestmark = pytest.mark.service
VISITOR = {"X-Forwarded-For": "192.0.2.1"}
EXECUTE = "EXECUTE add_to_visitors"


@dataclass
class Proxy:
    """Pass bytes between the application and PostgreSQL, and count who speaks in turn."""

    port: int
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    # The directions in which bytes went, without repetitions.
    turns: list[str] = field(default_factory=list)
    sent: bytes = b""
    # What may not be answered: the connection breaks off once the server has it and has answered.
    unanswered: bytes | None = None

    def serve(self) -> None:
        """Serve each connection in a thread of its own, until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.port))
                threading.Thread(target=self.pass_on, args=(client, server), daemon=True).start()

    def pass_on(self, client: socket.socket, server: socket.socket) -> None:
        """Copy both directions until one of the two ends."""
        with client, server, contextlib.suppress(OSError):
            breaking = False
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data or (breaking and ready is server):
                        return
                    if ready is client:
                        self.sent += data
                        breaking = self.unanswered is not None and self.unanswered in data
                    self.note("asked" if ready is client else "answered")
                    (server if ready is client else client).sendall(data)

    def note(self, turn: str) -> None:
        """Remember whose turn it was."""
        if self.turns[-1:] != [turn]:
            self.turns.append(turn)


@contextlib.contextmanager
def proxied(database: Database) -> Iterator[tuple[Proxy, Database]]:
    """Run a proxy in front of the database's server; yield it and the database behind it."""
    port = re.search(r":(\d+)/", database.url)
    assert port
    proxy = Proxy(int(port[1]))
    threading.Thread(target=proxy.serve, daemon=True).start()
    own = proxy.listener.getsockname()[1]
    try:
        yield proxy, replace(database, url=database.url.replace(port[0], f":{own}/"))
    finally:
        proxy.listener.shutdown(socket.SHUT_RDWR)
        proxy.listener.close()


@pytest.fixture
def behind_proxy(postgres_database: Database) -> Iterator[tuple[Proxy, FlaskClient]]:
    """A proxy and the application behind it, which has answered a page and counted a visit."""
    with proxied(migrated(postgres_database)) as (proxy, database):
        given = database.environ(database.user)
        given["DATABASE_URL"] += "?sslmode=disable"
        client = create_app(given).test_client()
        assert client.get("/", headers=VISITOR).status_code == 200
        proxy.turns.clear()
        proxy.sent = b""
        yield proxy, client


def test_a_page_is_one_round_trip(behind_proxy: tuple[Proxy, FlaskClient]) -> None:
    proxy, client = behind_proxy
    for visits in range(2, 12):
        assert f"this page {visits} times" in client.get("/", headers=VISITOR).text
    assert proxy.turns == ["asked", "answered"] * 10
    # Each message of the simple protocol begins with a Q.
    assert proxy.sent.count(EXECUTE.encode()) == 10
    assert len(re.findall(rb"Q\0\0", proxy.sent)) == 10


def test_the_server_logs_one_statement_a_page(
    postgres_server: Postgres, postgres_app: Flask
) -> None:
    client = postgres_app.test_client()
    client.get("/", headers=VISITOR)
    log = postgres_server.server.directory / "log"
    with postgres_app.app_context(), db.engine.connect() as connection:
        user = connection.scalar(text("SELECT current_user"))
    postgres_server.execute(f"ALTER ROLE {user} SET log_statement = 'all'")
    try:
        with postgres_app.app_context():
            db.engine.dispose()
        client.get("/", headers=VISITOR)
        before = log.stat().st_size
        for number in range(5):
            client.get("/", headers={"X-Forwarded-For": f"192.0.2.{number}"})
        logged = log.read_bytes()[before:].decode()
    finally:
        postgres_server.execute(f"ALTER ROLE {user} RESET log_statement")
    assert logged.count("LOG:  statement: ") == logged.count(f"statement: {EXECUTE}") == 5


def test_a_visit_whose_answer_is_lost_is_not_counted_again(
    behind_proxy: tuple[Proxy, FlaskClient],
) -> None:
    proxy, client = behind_proxy
    proxy.unanswered = EXECUTE.encode()
    assert client.get("/", headers=VISITOR).status_code == 503
    proxy.unanswered = None
    assert "this page 3 times" in client.get("/", headers=VISITOR).text


def test_a_visit_whose_session_ends_meanwhile_is_503_and_not_counted(
    postgres_server: Postgres, postgres_app: Flask, postgres_database: Database
) -> None:
    client = postgres_app.test_client()
    client.get("/", headers=VISITOR)
    codes: list[int] = []
    name = postgres_database.url.rpartition("/")[2]
    visit = threading.Thread(
        target=lambda: codes.append(client.get("/", headers=VISITOR).status_code))
    with postgres_server.connect(name) as holder, holder.transaction():
        holder.execute("UPDATE visitors SET visits = visits")
        visit.start()
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE %s " \
            "AND wait_event_type = 'Lock' AND datname = %s"
        with postgres_server.connect() as other:
            asked = [f"{EXECUTE}%", name]
            wait_until(lambda: other.execute(ended, asked).fetchone() == (True,),
                       "the waiting session is ended")
    visit.join(10)
    assert codes == [503]
    assert "this page 2 times" in client.get("/", headers=VISITOR).text


def test_an_idle_session_that_the_server_ended_costs_no_page(
    postgres_server: Postgres, postgres_app: Flask, postgres_database: Database
) -> None:
    client = postgres_app.test_client()
    client.get("/", headers=VISITOR)
    name = postgres_database.url.rpartition("/")[2]
    postgres_server.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                            f"WHERE datname = '{name}'")
    assert "this page 2 times" in client.get("/", headers=VISITOR).text


def test_past_days_are_kept_and_shown_as_they_are(
    postgres_server: Postgres, postgres_app: Flask, postgres_database: Database
) -> None:
    past = [utc_today() - timedelta(days=ago) for ago in (1, 2, 29, 30)]
    with postgres_server.connect(postgres_database.url.rpartition("/")[2]) as superuser:
        for number, day in enumerate(past, start=1):
            superuser.execute("INSERT INTO new_visitors VALUES (%s, 0, %s), (%s, 1, 10)",
                              [day, number, day])
    client = postgres_app.test_client()
    for visitors in (1, 2):
        page = client.get("/", headers={"X-Forwarded-For": f"192.0.2.{visitors}"}).text
        # The day thirty days ago isn't shown any more.
        assert f"{36 + visitors} in the last 30 days, 13 on the busiest day" in page
