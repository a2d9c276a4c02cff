"""Start and stop real servers for the tests, from Debian's packages."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psycopg
import pymysql
import requests

from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
# Every character with a special meaning in a URL, in a format string or to Alembic.
PASSWORD = "p%40@ss/w:rd%(x)s?#&"
VISITOR_KEY = "a key for tests, of 32 characters and more"


class ServiceError(RuntimeError):
    """A test server is missing or has failed: the test fails, it is never skipped."""


@dataclass(frozen=True)
class Database:
    """An empty database, with a user for its owner and one for the application."""

    url: str
    owner: str
    user: str

    def environ(self, user: str) -> dict[str, str]:
        """Return the environment, as in production, for a process that connects as this user."""
        return {
            "TALLY_ENV": "production",
            "TALLY_VERSION": "1.4.0+57",
            "VISITOR_KEY": VISITOR_KEY,
            "DATABASE_URL": self.url.format(user=user),
            "DATABASE_PASSWORD": PASSWORD,
        }


@dataclass
class Server:
    """A server process with its own directory, run as an unprivileged user."""

    account: str
    directory: Path
    port: int
    command: list[str]
    answers: Callable[["Server"], bool]
    ended_by: signal.Signals = signal.SIGTERM
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Start the process and wait until it answers."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                as_user(self.account, self.command), stdout=log, stderr=log, cwd="/"
            )
        try:
            wait_until(self.is_up, f"{self.command[0]} answers")
        except BaseException:
            self.process.kill()
            raise

    def is_up(self) -> bool:
        """Return whether the server answers; raise if it ended instead."""
        if self.process.poll() is not None:
            text = (self.directory / "log").read_text(errors="replace")
            raise ServiceError(f"{self.command[0]} ended: {text[-2000:]}")
        return self.answers(self)

    def stop(self) -> None:
        """Stop the process and wait until it is gone."""
        self.process.send_signal(self.ended_by)
        self.process.wait(START_SECONDS)


def as_user(account: str, command: list[str]) -> list[str]:
    """Return the command as another user if this is root; it ends when this process dies."""
    prefix = ["setpriv", "--pdeathsig=INT"]
    if os.geteuid() == 0:
        prefix += [f"--reuid={account}", f"--regid={group_of(account)}", "--init-groups"]
    return [*prefix, "--", *command]


def group_of(account: str) -> int:
    """Return the account's group; the server's package creates the account."""
    try:
        return pwd.getpwnam(account).pw_gid
    except KeyError as error:
        raise ServiceError(f"no user {account}: install the server's package") from error


def wait_until(true: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Wait until a condition is true, or fail and name it."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise ServiceError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


@contextlib.contextmanager
def directory_of(account: str) -> Iterator[Path]:
    """Make a directory that a server's user owns, and remove it at the end."""
    path = Path(tempfile.mkdtemp(prefix=f"tally-{account}-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(path, account, group_of(account))
        yield path
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """Run a server during a with block, and stop it even if the block fails."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL with production's two roles."""

    server: Server

    @contextlib.contextmanager
    def database(self, name: str) -> Iterator[Database]:
        """Make a database for the owner's role, and drop it at the end."""
        self.execute(f"CREATE DATABASE {name} OWNER tally_owner")
        try:
            url = f"postgresql://{{user}}@127.0.0.1:{self.server.port}/{name}"
            yield Database(url, owner="tally_owner", user="tally_app")
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def connect(self, name: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """Connect as the superuser; each statement is its own transaction."""
        return psycopg.connect(
            host="127.0.0.1", port=self.server.port, user="postgres", password=PASSWORD,
            dbname=name, autocommit=True,
        )

    def execute(self, statement: str) -> None:
        """Run one statement as the superuser."""
        with self.connect() as connection:
            connection.execute(statement.encode())

    def restart(self) -> None:
        """Restart the server: sessions end, the data stays."""
        self.server.stop()
        self.server.start()


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL on a port of the loopback interface."""
    binaries = postgres_binaries()
    with directory_of("postgres") as directory:
        initdb(binaries, directory)
        port = free_port()
        command = [
            str(binaries / "postgres"), "-D", str(directory / "data"), "-p", str(port),
            "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={directory}",
        ]
        # SIGINT is PostgreSQL's fast shutdown: it doesn't wait for clients.
        server = Server("postgres", directory, port, command, postgres_answers, signal.SIGINT)
        with running(server):
            found = Postgres(server)
            for role in ("tally_owner", "tally_app"):
                found.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
            yield found


def postgres_binaries() -> Path:
    """Return the program directory of the newest PostgreSQL."""
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)
    )
    if not versions:
        raise ServiceError("no PostgreSQL: apt-get install postgresql")
    return versions[-1]


def initdb(binaries: Path, directory: Path) -> None:
    """Make a cluster whose users need passwords, as in production."""
    with tempfile.NamedTemporaryFile("w") as password:
        password.write(PASSWORD)
        password.flush()
        os.chmod(password.name, 0o644)
        command = [
            str(binaries / "initdb"), "--no-sync", "--auth=scram-sha-256", "--encoding=UTF8",
            "--username=postgres", f"--pwfile={password.name}", f"--pgdata={directory / 'data'}",
        ]
        run(as_user("postgres", command))


def postgres_answers(server: Server) -> bool:
    """Return whether PostgreSQL accepts a connection."""
    with contextlib.suppress(psycopg.OperationalError):
        Postgres(server).connect().close()
        return True
    return False


@contextlib.contextmanager
def pgbouncer(postgres: Postgres, *settings: str) -> Iterator[Server]:
    """Run a PgBouncer that gives each transaction any of two sessions of a PostgreSQL."""
    if shutil.which("pgbouncer") is None:
        raise ServiceError("no PgBouncer: apt-get install pgbouncer")
    with directory_of("postgres") as directory:
        port = free_port()
        users = "".join(f'"{role}" "{PASSWORD}"\n' for role in ("tally_owner", "tally_app"))
        (directory / "users").write_text(users)
        (directory / "pgbouncer.ini").write_text("\n".join([
            "[databases]", f"* = host=127.0.0.1 port={postgres.server.port}",
            "[pgbouncer]", "listen_addr = 127.0.0.1", f"listen_port = {port}",
            "unix_socket_dir =", "auth_type = scram-sha-256", f"auth_file = {directory / 'users'}",
            "pool_mode = transaction", "default_pool_size = 2", *settings, "",
        ]))
        command = ["pgbouncer", str(directory / "pgbouncer.ini")]
        with running(Server("postgres", directory, port, command, accepts)) as server:
            yield server


def accepts(server: Server) -> bool:
    """Return whether something listens on the server's port."""
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port)).close()
        return True
    return False


@dataclass(frozen=True)
class MariaDB:
    """A MariaDB with one user for the application."""

    server: Server

    @contextlib.contextmanager
    def database(self, name: str) -> Iterator[Database]:
        """Make a database for the user tally, and drop it at the end."""
        self.execute(f"CREATE DATABASE {name}", f"GRANT ALL ON {name}.* TO 'tally'@'%'")
        try:
            url = f"mysql://{{user}}@127.0.0.1:{self.server.port}/{name}"
            yield Database(url, owner="tally", user="tally")
        finally:
            self.execute(f"DROP DATABASE {name}")

    def execute(self, *statements: str) -> None:
        """Run statements as root, over the socket."""
        socket_path = str(self.server.directory / "socket")
        with pymysql.connect(unix_socket=socket_path, user="root", autocommit=True) as connection:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)


@contextlib.contextmanager
def mariadb() -> Iterator[MariaDB]:
    """Run a MariaDB on a port of the loopback interface."""
    if shutil.which("mariadbd") is None or shutil.which("mariadb-install-db") is None:
        raise ServiceError("no MariaDB: apt-get install mariadb-server")
    with directory_of("mysql") as directory:
        options = ["--no-defaults", f"--datadir={directory / 'data'}"]
        install = ["mariadb-install-db", *options, "--auth-root-authentication-method=normal"]
        run(as_user("mysql", install))
        port = free_port()
        command = [
            "mariadbd", *options, f"--port={port}", "--bind-address=127.0.0.1",
            "--skip-name-resolve", f"--socket={directory / 'socket'}",
            f"--pid-file={directory / 'pid'}",
        ]
        with running(Server("mysql", directory, port, command, mariadb_answers)) as server:
            found = MariaDB(server)
            found.execute(f"CREATE USER 'tally'@'%' IDENTIFIED BY '{PASSWORD}'")
            yield found


def mariadb_answers(server: Server) -> bool:
    """Return whether MariaDB accepts a connection."""
    with contextlib.suppress(pymysql.OperationalError):
        MariaDB(server).execute("SELECT 1")
        return True
    return False


@contextlib.contextmanager
def uwsgi(
    environ: dict[str, str], *options: str, log: IO[bytes] | None = None
) -> Iterator[str]:
    """Serve the application with four processes, as in production; yield its URL.

    Everything that the server says goes to the open file `log`.
    """
    port = free_port()
    program = Path(sys.executable).with_name("uwsgi")
    command = [
        str(program), "--strict", "--module", "app:create_app()", "--need-app", "--master",
        "--single-interpreter", "--processes", "4", "--enable-threads",
        "--http-socket", f"127.0.0.1:{port}", "--listen", "128", "--disable-logging",
        "--die-on-term", *options,
    ]
    with log or tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environ}, stdout=said, stderr=said
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until(lambda: serves(process, address), "uWSGI serves")
            yield address
        finally:
            process.terminate()
            process.wait(START_SECONDS)


def serves(process: subprocess.Popen[bytes], address: str) -> bool:
    """Return whether the application answers; uWSGI listens before it loads the application."""
    if process.poll() is not None:
        raise ServiceError(f"uWSGI ended with code {process.returncode}")
    with contextlib.suppress(requests.ConnectionError, requests.Timeout):
        return requests.get(f"{address}/healthz", timeout=10).ok
    return False


def run(command: list[str]) -> None:
    """Run a command that prepares a server, or fail with its output."""
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    if done.returncode:
        raise ServiceError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
