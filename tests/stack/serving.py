"""Serve HTTP on this machine while a test lasts."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Serve on a port of the loopback interface, which is yielded."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        # Looked at often, so that the end doesn't keep the test waiting.
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
