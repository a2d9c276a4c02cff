"""The probe reports exactly what visitors experience."""

import http.server
import threading
import time
from collections.abc import Iterator

import pytest

from stack.release.probe import Watch, watching

pytestmark = pytest.mark.unit

HERE = "127.0.0.1"


class Site(http.server.ThreadingHTTPServer):
    """A test server that can be made to fail."""

    ill = False


class Visitor(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        assert isinstance(self.server, Site)
        self.send_response(503 if self.server.ill or self.path != "/" else 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def site() -> Iterator[Site]:
    with Site((HERE, 0), Visitor) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_site_that_answers_has_no_failure_and_no_long_gap(site: Site) -> None:
    with watching([HERE], site.server_port) as watch:
        time.sleep(0.6)
    report = watch.report()
    assert report.failures == 0 and 5 <= report.requests <= 13
    assert 0 < report.p50 <= report.p99 < 500
    assert report.longest_gap < 0.5


def test_a_site_that_fails_for_a_while_shows_it(site: Site) -> None:
    with watching([HERE], site.server_port) as watch:
        time.sleep(0.3)
        site.ill = True
        time.sleep(0.5)
        site.ill = False
        time.sleep(0.3)
    report = watch.report()
    assert 4 <= report.failures <= 20
    assert report.requests > report.failures
    assert 0.45 <= report.longest_gap < 2


def test_a_lost_site_fails_every_request() -> None:
    with Site((HERE, 0), Visitor) as closed:
        port = closed.server_port
    with watching([HERE], port) as watch:
        time.sleep(0.3)
    report = watch.report()
    assert report.failures == report.requests > 2
    assert report.longest_gap >= 0.3


def test_several_edge_nodes_are_asked_in_turn(site: Site) -> None:
    with watching([HERE, "127.0.0.2"], site.server_port) as watch:
        time.sleep(0.6)
    report = watch.report()
    assert report.requests >= 5
    assert report.failures == report.requests // 2


def test_the_report_reads_as_a_line() -> None:
    watch = Watch(began=0.0, ended=4.0, failures=1, answered=[1.0, 3.0], took=[0.010, 0.010])
    assert str(watch.report()) == (
        "3 requests, 1 failed, p50 10 ms, p99 10 ms, longest gap 2.0 s")
