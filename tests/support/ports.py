"""Find ports for the servers of a test."""

import random
import socket
from contextlib import suppress

# Below the ports that Linux gives to outgoing connections: one of them may take such a port
# between this search and the server's start.
PORTS = range(10_000, 32_000)


def free_port() -> int:
    """Return a port on which nothing listens, at any address of this machine."""
    while True:
        port = random.choice(PORTS)
        with suppress(OSError), socket.socket() as listener:
            listener.bind(("", port))
            return port
