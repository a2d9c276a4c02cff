"""Answer on ports, or find which ports of a machine answer.

Needs only Python, so it runs on any machine and in a container:

    ports.py listen tcp/2377 udp/4789
    ports.py find 198.51.100.2 tcp/22 tcp/80 udp/4789
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import sys
import time
from collections.abc import Iterable

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
AT_ONCE = 500
# The lab's machines are neighbours: what answers does so within milliseconds.
PATIENCE = 1.5


def answering(address: str, ports: Iterable[str], patience: float = PATIENCE) -> set[str]:
    """Return the TCP ports that accept a connection and the UDP ports that reply."""
    return {port for port, code in _outcomes(address, ports, patience).items() if code == 0}


def reacting(address: str, ports: Iterable[str], patience: float = PATIENCE) -> set[str]:
    """Return the ports that answer or refuse, so those whose packets nothing drops.

    A kernel refuses only a few UDP ports per second, so the others seem to drop.
    """
    return {port for port, code in _outcomes(address, ports, patience).items()
            if code in {0, errno.ECONNREFUSED}}


def listen(ports: Iterable[str]) -> None:
    """Answer on ports for ever, over IPv4 and IPv6; print where each datagram came from."""
    selector = selectors.DefaultSelector()
    for port in ports:
        kind, number = port.split("/")
        opened = socket.socket(socket.AF_INET6, KINDS[kind])
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(("::", int(number)))
        if kind == "tcp":
            opened.listen()
        selector.register(opened, selectors.EVENT_READ, port)
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            _answer(key.fileobj, key.data)


def _answer(opened: socket.socket, port: str) -> None:
    if opened.type == socket.SOCK_STREAM:
        opened.accept()[0].close()
        return
    _, sender = opened.recvfrom(100)
    print(port, sender[0].removeprefix("::ffff:"), flush=True)
    opened.sendto(b"!", sender)


def _outcomes(address: str, ports: Iterable[str], patience: float) -> dict[str, int]:
    """Return each port's result: 0 if it answered in time, else the error number."""
    waiting = sorted(ports)
    outcomes: dict[str, int] = {}
    for start in range(0, len(waiting), AT_ONCE):
        outcomes |= _outcomes_at_once(address, waiting[start:start + AT_ONCE], patience)
    return outcomes


def _outcomes_at_once(address: str, ports: list[str], patience: float) -> dict[str, int]:
    selector = selectors.DefaultSelector()
    for port in ports:
        kind, number = port.split("/")
        asking = _ask(address, KINDS[kind], int(number))
        event = selectors.EVENT_WRITE if kind == "tcp" else selectors.EVENT_READ
        selector.register(asking, event, port)
    outcomes = {}
    deadline = time.monotonic() + patience
    while selector.get_map() and (left := deadline - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            assert isinstance(key.fileobj, socket.socket)
            selector.unregister(key.fileobj)
            outcomes[key.data] = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            key.fileobj.close()
    for key in list(selector.get_map().values()):
        assert isinstance(key.fileobj, socket.socket)
        key.fileobj.close()
    selector.close()
    return outcomes


def _ask(address: str, kind: socket.SocketKind, number: int) -> socket.socket:
    """Start a connection, or send a datagram; raises OSError if there is no route."""
    family, _, _, _, target = socket.getaddrinfo(address, number, type=kind)[0]
    asking = socket.socket(family, kind)
    asking.setblocking(False)
    if (code := asking.connect_ex(target)) not in {0, errno.EINPROGRESS}:
        raise OSError(code, os.strerror(code), address)
    if kind == socket.SOCK_DGRAM:
        asking.send(b"?")
    return asking


if __name__ == "__main__":
    if sys.argv[1] == "listen":
        listen(sys.argv[2:])
    else:
        print(*sorted(answering(sys.argv[2], sys.argv[3:])))
