"""Run the images' servers between visitors and the application, with their own configuration."""

import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from threading import Event
from typing import Any
from urllib.parse import urlsplit

from tests.support.ports import free_port
from tests.support.services import ROOT, Server, directory_of, running
from tests.support.serving import serving

IMAGES = ROOT / "stack/images"


@dataclass
class SwarmEngine:
    """An engine's answers to Traefik, by the path's first part.

    `asked` is set when a request arrives; requests wait while `ready` is clear.
    """

    answers: dict[str, Any]
    ready: Event = field(default_factory=Event)
    asked: Event = field(default_factory=Event)

    def answer(self, path: str) -> tuple[HTTPStatus, Any]:
        """Return the status and the content of an answer."""
        parts = [part for part in path.split("/") if part and not part.startswith("v1.")]
        if parts[0] == "version":
            # Not about the Swarm, so no manager refuses it; the proxy's health check asks it.
            return HTTPStatus.OK, {"Version": "26.1.5", "ApiVersion": "1.45"}
        self.asked.set()
        self.ready.wait()
        return HTTPStatus.OK, self.answers[parts[0]]


class Handler(BaseHTTPRequestHandler):
    """Answers without a log, and keeps the connection."""

    protocol_version = "HTTP/1.1"

    def say(self, status: HTTPStatus, text: str) -> None:
        """Send a whole answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@contextlib.contextmanager
def listening(engine: SwarmEngine) -> Iterator[int]:
    """Serve an engine's answers during the block; yield the port."""
    class Api(Handler):
        def do_GET(self) -> None:
            status, content = engine.answer(urlsplit(self.path).path)
            self.say(status, json.dumps(content))

        do_HEAD = do_GET

    with serving(Api) as port:
        try:
            yield port
        finally:
            engine.ready.set()


def adapted(path: str, changes: dict[str, str]) -> str:
    """Return an image's file with its addresses changed to those of a test."""
    text = (IMAGES / path).read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, f"{path} doesn't have {old} once"
        text = text.replace(old, new)
    return text


def accepts(port: int) -> bool:
    """Return whether a port of the loopback interface accepts a connection."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False


@contextlib.contextmanager
def socket_proxy(engine: int) -> Iterator[Server]:
    """Run HAProxy in front of an engine at this port."""
    with directory_of("haproxy") as directory:
        port, file = free_port(), directory / "haproxy.cfg"
        file.write_text(adapted("socket-proxy/haproxy.cfg", {
            "bind :2375": f"bind 127.0.0.1:{port}",
            "bind 127.0.0.1:8404": f"bind 127.0.0.1:{free_port()}",
            "unix@/var/run/docker.sock": f"127.0.0.1:{engine}"}))
        with running(Server("haproxy", directory, port, ["haproxy", "-db", "-f", str(file)],
                            lambda server: accepts(server.port), signal.SIGTERM)) as server:
            yield server
