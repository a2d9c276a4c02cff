"""Serve HTTP on this machine during a test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Serve on a port of the loopback interface; yield the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        # A short poll interval, so that shutting down doesn't delay the test.
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
