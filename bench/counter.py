"""Measure a page against what Flask and the database could do, and against the usual way to count.

    pip install --require-hashes -r requirements.test.txt
    sudo apt-get install haproxy postgresql wrk
    python bench/counter.py

It starts a PostgreSQL of its own with durable commits, and uWSGI with the project's uwsgi.ini,
first alone and then behind HAProxy as in the image. wrk asks over 16 connections, as 20,000
visitors who have all been there before. All of it shares this computer.

* Flask: a page that says hello.
* the database: pgbench with 4 clients; one prepared statement adds a visit and reads the total.
* Tally: the page, with tables of several sizes.
* the reference: select the visitor, add one, count(*); with Flask-SQLAlchemy.

A page that costs no more than Flask's and the database's together would reach
1 / (1 / Flask + 1 / database): the composite limit.
"""

import argparse
import contextlib
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import log10
from pathlib import Path
from urllib.parse import quote

from measure import Calm, Failed, loads, parser

ROOT = Path(__file__).resolve().parents[1]
# Run as a script, Python looks for modules beside it only.
sys.path.insert(0, str(ROOT))

from app.addresses import visitor_digest  # noqa: E402
from tests.app.conftest import migrated  # noqa: E402
from tests.support.production import STRANGERS, Production, children, status  # noqa: E402
from tests.support.services import (  # noqa: E402
    PASSWORD, VISITOR_KEY, Database, Postgres, ServiceError, postgres)

CONNECTIONS = 16
VISITORS = 20_000
SIZES = (0, 100_000, 1_000_000)
LARGE = 10_000_000
REQUESTS = 200_000
PLOT = ROOT / "docs/throughput.svg"

BARE = """
from flask import Flask

def create_app():
    app = Flask(__name__)
    app.add_url_rule("/", "page", lambda: "hello")
    return app
"""
REFERENCE = """
import os
from flask import Flask, request
from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy()

class Visit(db.Model):
    address = db.Column(db.Text, primary_key=True)
    visits = db.Column(db.BigInteger, nullable=False)

def page():
    visit = db.session.get(Visit, request.headers["X-Forwarded-For"])
    if visit is None:
        visit = Visit(address=request.headers["X-Forwarded-For"], visits=0)
        db.session.add(visit)
    visit.visits += 1
    db.session.commit()
    return f"{visit.visits} of {db.session.query(Visit).count()}"

def create_app():
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["REFERENCE_URL"]
    db.init_app(app)
    app.add_url_rule("/", "page", page)
    return app
"""
# wrk's random numbers begin alike in each run. Without keep-alive, as Traefik asks the page.
SCRIPT = """
local requests = {}
function init(args)
    for number = 0, %(visitors)d - 1 do
        requests[number] = string.format("GET / HTTP/1.0\\r\\nHost: localhost\\r\\n"
            .. "X-Forwarded-For: 10.1.%%d.%%d\\r\\n\\r\\n", number / 200, number %% 200)
    end
end
function request() return requests[math.random(0, %(visitors)d - 1)] end
%(delay)s
"""
DELAY = "function delay() return math.random(0, %d) end"
STATEMENT = """
\\set number random(1, {visitors})
WITH visit AS (
    INSERT INTO visitors (visitor, visits) VALUES (decode(md5(:number::text), 'hex'), 1)
    ON CONFLICT (visitor) DO UPDATE SET visits = visitors.visits + 1 RETURNING visits)
SELECT visits, (SELECT sum(visitors) FROM visitor_totals) FROM visit;
"""


@dataclass(frozen=True)
class Rate:
    """What wrk has measured."""

    pages: float
    p50: float
    p99: float

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.pages:9,.0f}/s   p50 {self.p50:6.1f} ms   p99 {self.p99:6.1f} ms"


def address(number: int) -> str:
    """Return the address of one of the visitors, as in wrk's script."""
    return f"10.1.{number // 200}.{number % 200}"


def ask(port: int, seconds: float, most_delay: int = 0) -> Rate:
    """Ask for pages for so long, and return how many came and when."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        delay = DELAY % most_delay if most_delay else ""
        script.write(SCRIPT % {"visitors": VISITORS, "delay": delay})
        script.flush()
        said = checked(["wrk", "--threads=1", f"--connections={CONNECTIONS}", "--latency",
                        f"--duration={seconds:g}s", "--timeout=10s", f"--script={script.name}",
                        f"http://{STRANGERS}:{port}/"])
    if refused := re.search(r"Non-2xx.*|Socket errors: .*", said):
        raise Failed(f"wrk: {refused[0]}")
    return Rate(float(found(r"Requests/sec:\s+([\d.]+)", said)), milliseconds("50%", said),
                milliseconds("99%", said))


def found(pattern: str, text: str) -> str:
    """Return what a pattern's group matches; raises Failed."""
    match = re.search(pattern, text)
    if match is None:
        raise Failed(f"there is no {pattern} in: {text}")
    return match[1]


def milliseconds(quantile: str, said: str) -> float:
    """Return one of wrk's latencies."""
    number, unit = found(rf"\s{quantile}\s+(\S+)", said), 1.0
    for name, worth in (("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)):
        if number.endswith(name):
            number, unit = number.removesuffix(name), worth
            break
    return float(number) * unit


def checked(command: list[str], **environ: str) -> str:
    """Run a program and return what it says; raises Failed."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environ})
    if done.returncode:
        raise Failed(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout


def quiet_port() -> int:
    """Return a free port that none of wrk's many connections takes meanwhile."""
    for port in range(18_000, 19_000):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("", port))
            return port
    raise Failed("no free port from 18000 to 18999")


@dataclass
class Site(Production):
    """uWSGI with the project's uwsgi.ini, for Tally or for the source of another application."""

    port: int = field(default_factory=quiet_port)
    source: str | None = None
    haproxy: bool = False

    def prepare(self) -> None:
        """Copy the image's files; without HAProxy, uWSGI listens on the port itself."""
        super().prepare()
        ini = self.folder / "uwsgi.ini"
        text = ini.read_text()
        if self.source is not None:
            (self.folder / "page.py").write_text(self.source)
            text = text.replace("app:create_app()", "page:create_app()")
        if not self.haproxy:
            text = re.sub("(?m)^(attach-control-daemon|enable-proxy-protocol) .*\n", "", text)
            text = re.sub("(?m)^http-socket .*", f"http-socket = :{self.port}", text)
        ini.write_text(text)

    def is_ready(self) -> bool:
        """Return whether pages are served; raise if the servers ended."""
        if self.process.poll() is not None:
            raise Failed(f"./serve ended: {self.log[-2000:]}")
        with contextlib.suppress(ConnectionError):
            path = b"/readyz" if self.source is None else b"/"
            sent = b"GET %b HTTP/1.0\r\nX-Forwarded-For: %b\r\n\r\n"
            return status(self.ask(sent % (path, address(0).encode()))) == 200
        return False

    def memory(self) -> float:
        """Return the mean memory of a worker, in MB, without what it shares with others."""
        workers = [child for child in children(self.uwsgi)
                   if "uwsgi" in Path(f"/proc/{child}/comm").read_text()]
        sizes = [int(found(r"Pss:\s+(\d+)", Path(f"/proc/{worker}/smaps_rollup").read_text()))
                 for worker in workers]
        return sum(sizes) / len(sizes) / 1024


@contextlib.contextmanager
def served(environ: dict[str, str], source: str | None = None, haproxy: bool = False
           ) -> Iterator[Site]:
    """Serve an application during a with block."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
    with tempfile.TemporaryDirectory(prefix="tally-bench-") as name:
        given = {"PATH": path, "PROMETHEUS_MULTIPROC_DIR": f"{name}/metrics", "DRAIN_SECONDS": "0",
                 "PYTHONDONTWRITEBYTECODE": "1", **environ}
        site = Site(Path(name), given, source=source, haproxy=haproxy)
        site.prepare()
        try:
            site.start()
            yield site
        finally:
            if site.process.poll() is None:
                site.stop()


class Table:
    """One of the two ways to count, in a database of its own."""

    def __init__(self, server: Postgres, database: Database) -> None:
        """Take a database."""
        self.server, self.database, self.rows = server, database, 0
        self.name = database.url.rpartition("/")[2]

    def environ(self) -> dict[str, str]:
        """Return the application's environment."""
        return self.database.environ(self.database.user)

    def run(self, *statements: str) -> None:
        """Run statements as the superuser, without firing triggers."""
        with self.server.connect(self.name) as session:
            session.execute("SET session_replication_role = replica")
            for statement in statements:
                session.execute(statement.encode())


class TallyTable(Table):
    """Tally's tables: the visitors that wrk plays, and others."""

    def prepare(self) -> None:
        """Migrate, and make wrk's visitors known."""
        with contextlib.redirect_stdout(sys.stderr):
            migrated(self.database)
        digests = [visitor_digest(address(number), VISITOR_KEY.encode())
                   for number in range(VISITORS)]
        with self.server.connect(self.name) as session:
            session.execute("SET session_replication_role = replica")
            session.execute("INSERT INTO visitors SELECT unnest(%s::bytea[]), 1", [digests])

    def grow(self, rows: int) -> None:
        """Add as many rows as are missing, and count them in every slot of total and days."""
        self.run(
            "INSERT INTO visitors SELECT decode(md5('other ' || number), 'hex'), 1, CURRENT_DATE "
            f"FROM generate_series({self.rows} + 1, {rows}) AS number",
            "TRUNCATE visitor_totals, new_visitors",
            share("visitor_totals", "slot", "generate_series(0, 63) AS slot", rows, 64),
            share("new_visitors", "day, slot", "(SELECT (now() AT TIME ZONE 'UTC')::date - ago AS "
                  "day, slot FROM generate_series(0, 29) AS ago, generate_series(0, 7) AS slot) "
                  "AS each", rows, 240),
            "VACUUM ANALYZE visitors", "VACUUM ANALYZE visitor_totals",
            "VACUUM ANALYZE new_visitors", "CHECKPOINT")
        self.rows = rows

    def drift(self) -> int:
        """Return by how much the total and the days differ from the visitors."""
        with self.server.connect(self.name) as session:
            row = session.execute(
                "SELECT abs(count(*) - (SELECT sum(visitors) FROM visitor_totals)) "
                "+ abs(count(*) - (SELECT sum(visitors) FROM new_visitors)) FROM visitors"
            ).fetchone()
        assert row is not None
        return int(str(row[0]))


def share(table: str, columns: str, places: str, rows: int, parts: int) -> str:
    """Return the statement that spreads the number of visitors over all slots of a table."""
    total = rows + VISITORS
    return (f"INSERT INTO {table} SELECT {columns}, {total // parts} + (row_number() OVER () <= "
            f"{total % parts})::int FROM {places}")


class ReferenceTable(Table):
    """The reference's table, with the same visitors."""

    def environ(self) -> dict[str, str]:
        """Return the application's environment."""
        user = f"{self.database.owner}:{quote(PASSWORD, safe='')}"
        return {"REFERENCE_URL": self.database.url.format(user=user)}

    def prepare(self) -> None:
        """Make the table, and wrk's visitors known."""
        self.run(
            "CREATE TABLE visit (address text PRIMARY KEY, visits bigint NOT NULL)",
            f"ALTER TABLE visit OWNER TO {self.database.owner}",
            "INSERT INTO visit SELECT '10.1.' || number / 200 || '.' || number % 200, 1 "
            f"FROM generate_series(0, {VISITORS} - 1) AS number")

    def grow(self, rows: int) -> None:
        """Add as many rows as are missing."""
        self.run("INSERT INTO visit SELECT 'other ' || number, 1 "
                 f"FROM generate_series({self.rows} + 1, {rows}) AS number",
                 "VACUUM ANALYZE visit", "CHECKPOINT")
        self.rows = rows


def database_alone(table: TallyTable, seconds: float) -> Rate:
    """Measure pgbench, whose visitors are its own."""
    table.run("INSERT INTO visitors SELECT decode(md5(number::text), 'hex'), 1, CURRENT_DATE "
              f"FROM generate_series(1, {VISITORS}) AS number ON CONFLICT DO NOTHING")
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(STATEMENT.format(visitors=VISITORS))
        script.flush()
        said = checked(
            ["pgbench", "--no-vacuum", "--protocol=prepared", "--client=4", "--host=127.0.0.1",
             f"--port={table.server.server.port}", "--username=postgres", f"--time={seconds:g}",
             f"--file={script.name}", table.name], PGPASSWORD=PASSWORD)
    table.run(f"DELETE FROM visitors WHERE visitor IN (SELECT decode(md5(number::text), 'hex') "
              f"FROM generate_series(1, {VISITORS}) AS number)", "VACUUM ANALYZE visitors")
    return Rate(float(found(r"tps = ([\d.]+)", said)),
                float(found(r"latency average = ([\d.]+)", said)), float("nan"))


class Bench:
    """Measure each row, and print it at once."""

    def __init__(self, seconds: float, calm: Calm) -> None:
        """Take how long each row is measured."""
        self.seconds, self.calm = seconds, calm
        self.rates: dict[str, Rate] = {}

    def row(self, name: str, rate: Rate) -> Rate:
        """Print and keep one row."""
        self.rates[name] = rate
        print(f"{name:40} {rate}   {loads()}", flush=True)
        return rate

    def pages(self, name: str, site: Site) -> Rate:
        """Measure an application, after a second to get warm."""
        self.calm.wait()
        ask(site.port, 1)
        return self.row(name, ask(site.port, self.seconds))

    def tally(self, table: TallyTable, sizes: Sequence[int]) -> None:
        """Measure the page at each size, without and with HAProxy, and at half its rate."""
        for rows in sizes:
            table.grow(rows)
            with served(table.environ()) as site:
                rate = self.pages(f"Tally, {rows:,} rows", site)
                if rows == sizes[0]:
                    between = 1000 * CONNECTIONS / (rate.pages / 2) - rate.p50
                    self.row("Tally, half the load", ask(site.port, self.seconds,
                                                         max(1, round(2 * between))))
            with served(table.environ(), haproxy=True) as site:
                self.pages(f"Tally behind HAProxy, {rows:,} rows", site)

    def reference(self, table: ReferenceTable, sizes: Sequence[int]) -> None:
        """Measure the usual way to count at each size."""
        for rows in sizes:
            table.grow(rows)
            with served(table.environ(), REFERENCE) as site:
                self.pages(f"reference, {rows:,} rows", site)

    def conclude(self, sizes: Sequence[int]) -> None:
        """Print what the rows mean."""
        pages = {name: rate.pages for name, rate in self.rates.items()}
        tally, flask = pages[f"Tally, {sizes[0]:,} rows"], pages["Flask"]
        limit = 1 / (1 / flask + 1 / pages["the database"])
        last = sizes[-1]
        print(f"composite limit {limit:,.0f}/s")
        print(f"Tally / composite limit   {tally / limit:6.2f}")
        print(f"Tally / Flask             {tally / flask:6.2f}")
        for rows in sizes:
            ratio = pages[f"Tally, {rows:,} rows"] / pages[f"reference, {rows:,} rows"]
            print(f"Tally / reference         {ratio:6.1f} at {rows:,} rows")
        print(f"Tally at {last:,} / at 0    {pages[f'Tally, {last:,} rows'] / tally:6.2f}")
        behind = pages[f"Tally behind HAProxy, {sizes[0]:,} rows"]
        print(f"behind HAProxy / without  {behind / tally:6.2f}")


def remember(table: TallyTable) -> None:
    """Print a worker's memory at rest and after many requests."""
    with served(table.environ()) as site:
        print(f"a worker at rest: {site.memory():.1f} MB", flush=True)
        done = 0.0
        while done < REQUESTS:
            done += ask(site.port, 10).pages * 10
        print(f"after {done:,.0f} requests: {site.memory():.1f} MB", flush=True)


def plot(rates: Mapping[str, Rate], sizes: Sequence[int]) -> str:
    """Return the throughput against the table's size, both in powers of ten, as SVG."""
    lines, colours = [], {"Tally": "#0f766e", "reference": "#b45309"}
    for number, (name, colour) in enumerate(colours.items()):
        points = [(80 + 480 * log10(max(rows, 10_000) / 10_000) / log10(max(sizes) / 10_000),
                   300 - 65 * log10(max(rates[f"{name}, {rows:,} rows"].pages, 1)))
                  for rows in sizes]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="3"/>')
        lines += [f'<text x="{x:.1f}" y="{y - 8:.1f}" text-anchor="middle" fill="{colour}">'
                  f'{rates[f"{name}, {rows:,} rows"].pages:,.0f}</text>'
                  for (x, y), rows in zip(points, sizes)]
        lines += [f'<text x="{x:.1f}" y="325" text-anchor="middle">{rows:,}</text>'
                  for (x, _), rows in zip(points, sizes) if number == 0]
        lines.append(f'<text x="20" y="{25 + 20 * number}" fill="{colour}">{name}</text>')
    return "\n".join([
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 350" font-family="sans-serif" '
        'font-size="13" role="img">',
        "<title>Pages a second against the rows of the table</title>",
        '<rect width="640" height="350" fill="#fff"/>',
        '<path d="M60 20V300H620" fill="none" stroke="#676b66"/>', *lines,
        '<text x="620" y="345" text-anchor="end">rows besides the visitors</text>', "</svg>", ""])


def machine() -> str:
    """Return what this computer is."""
    model = found(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(found(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())) / 1024 ** 2
    return (f"{model}, {os.cpu_count()} processors, {memory:.0f} GB, Linux {platform.release()}, "
            f"Python {platform.python_version()}")


def measure(given: argparse.Namespace) -> None:
    """Measure everything, print it, and save the plot."""
    sizes = (*SIZES, LARGE) if given.large else SIZES
    bench = Bench(given.seconds, Calm.chosen(given))
    print(f"{machine()}\nuWSGI alone unless HAProxy is named; {CONNECTIONS} connections, "
          f"{VISITORS:,} visitors, {given.seconds:g} s each", flush=True)
    with served({}, BARE) as site:
        bench.pages("Flask", site)
    with served({}, BARE, haproxy=True) as site:
        bench.pages("Flask behind HAProxy", site)
    with postgres() as server, server.database("tally_bench") as own:
        with server.database("reference_bench") as other:
            table, reference = TallyTable(server, own), ReferenceTable(server, other)
            table.prepare()
            reference.prepare()
            table.grow(0)
            bench.calm.wait()
            bench.row("the database", database_alone(table, given.seconds))
            bench.tally(table, sizes)
            bench.reference(reference, sizes)
            bench.conclude(sizes)
            print(f"drift of Tally's totals: {table.drift()}")
            if given.memory:
                remember(table)
    PLOT.write_text(plot(bench.rates, sizes))
    print(f"saved {PLOT.relative_to(ROOT)}")


def main() -> None:
    """Run the benchmark; Ctrl-C and SIGTERM end everything that it started."""
    made = parser(__doc__)
    made.add_argument("--seconds", type=float, default=5, help="for each row (default: 5)")
    made.add_argument("--large", action="store_true", help="with 10 million rows as well")
    made.add_argument("--memory", action="store_true",
                      help="a worker's memory, before and after 200,000 requests")
    given = made.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if missing := [name for name in ("wrk", "pgbench", "haproxy") if not which(name)]:
            raise Failed(f"not installed: {', '.join(missing)}")
        measure(given)
    except (Failed, ServiceError) as error:
        sys.exit(f"bench/counter.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def which(name: str) -> str | None:
    """Return where a program is."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")


if __name__ == "__main__":
    main()
