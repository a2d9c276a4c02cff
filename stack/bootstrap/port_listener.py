"""Answer on a machine's ports, or test another's: port_check.py runs this program there.

Needs nothing but Python's standard library:

    port_listener.py listen TOKEN SECONDS 192.0.2.11 tcp/2377 udp/4789
    port_listener.py ask TOKEN tcp/192.0.2.12:2377 udp/192.0.2.12:4789 connect/192.0.2.13:7946
    port_listener.py end TOKEN 192.0.2.11
"""

import errno
import os
import re
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

# Long enough to send a lost first packet again.
PATIENCE = 2.0
# UDP doesn't send a lost datagram again.
TRIES = 3
# Longer than any token.
SIZE = 128


def listen(token: str, seconds: float, address: str, ports: Iterable[str]) -> None:
    """Bind the ports, then answer on them with the token in the background.

    The listener ends on request, or by itself after that many seconds. Prints `elsewhere` if the
    address isn't this machine's, and `taken PORT PROGRAMS` for each port that others hold.
    """
    if not _is_own(address):
        print("elsewhere")
        return
    _end_earlier(address)
    opened = [found for port in ports if (found := _opened(address, port))]
    if opened:
        _go_on(opened, token, address, time.monotonic() + seconds)


def _end_earlier(address: str) -> None:
    """End the listener of an interrupted check, so that its ports don't count as taken."""
    with open("/proc/net/unix", encoding="utf-8") as sockets:
        names = {line.split()[-1] for line in sockets}
    for name in names:
        if found := re.fullmatch(rf"@reach-(.+)-{re.escape(address)}", name):
            end(found[1], address)


def _is_own(address: str) -> bool:
    """Try to bind: the kernel decides, not a list of addresses."""
    try:
        _bound("udp", address, 0).close()
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        return False
    return True


def _opened(address: str, port: str) -> socket.socket | None:
    """Open a port, or print who holds it."""
    kind, number = port.split("/")
    try:
        return _bound(kind, address, int(number))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    print("taken", port, ",".join(_holders(kind, number)))
    return None


def _bound(kind: str, address: str, number: int) -> socket.socket:
    """Open a socket on this address alone: other networks must not reach these ports."""
    if kind == "tcp":
        opened = socket.create_server((address, number))
    else:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind((address, number))
    opened.setblocking(False)
    return opened


def _holders(kind: str, number: str) -> list[str]:
    """Return the programs that listen on a port: none if it is the kernel itself."""
    shown = subprocess.run(["ss", "-Hlnp", f"--{kind}", f"sport = :{number}"],
                           capture_output=True, text=True, check=True).stdout
    return sorted(set(re.findall(r'\("([^"]+)",pid=', shown)))


def _go_on(opened: Sequence[socket.socket], token: str, address: str, deadline: float) -> None:
    """Answer in a child process, so that the caller doesn't wait."""
    with socket.socket(socket.AF_UNIX) as ending:
        ending.bind(_ending(token, address))
        ending.listen()
        sys.stdout.flush()
        if os.fork():
            return
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        _serve(opened, ending, token, deadline)
        # Before `ending`, so that the ports are free for Docker when end() returns.
        for each in opened:
            each.close()


def _ending(token: str, address: str) -> str:
    """Name the socket that ends a listener: an abstract one, so no file is left behind."""
    return f"\0reach-{token}-{address}"


def _serve(opened: Sequence[socket.socket], ending: socket.socket, token: str,
           deadline: float) -> None:
    with selectors.DefaultSelector() as selector:
        for each in (*opened, ending):
            selector.register(each, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if key.fileobj is ending:
                    return
                assert isinstance(key.fileobj, socket.socket)
                # The asking machine may have gone; it reports the failure itself.
                with suppress(OSError):
                    _answer(key.fileobj, token.encode())


def _answer(opened: socket.socket, token: bytes) -> None:
    if opened.type == socket.SOCK_STREAM:
        with opened.accept()[0] as connection:
            connection.sendall(token)
        return
    asked, sender = opened.recvfrom(SIZE)
    # Others get no answer: they could forge a sender's address to flood its owner.
    if asked == token:
        opened.sendto(token, sender)


def ask(token: str, targets: Sequence[str]) -> list[str]:
    """Return the targets that don't answer; all are asked at once.

    A target is tcp/ or udp/ where a listener has the token, or connect/ where any other
    program takes TCP connections.
    """
    with ThreadPoolExecutor(len(targets)) as pool:
        answers = list(pool.map(lambda target: _answers(target, token.encode()), targets))
    return [target for target, answer in zip(targets, answers) if not answer]


def _answers(target: str, token: bytes) -> bool:
    kind, place = target.split("/")
    host, number = place.split(":")
    if kind == "udp":
        return _echoes(host, int(number), token)
    try:
        with socket.create_connection((host, int(number)), PATIENCE) as connection:
            return kind == "connect" or connection.recv(SIZE) == token
    except OSError:
        return False


def _echoes(host: str, number: int, token: bytes) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(PATIENCE / TRIES)
        for _ in range(TRIES):
            # No answer in time, or a firewall refused: the next try may succeed.
            with suppress(OSError):
                asking.connect((host, number))
                asking.send(token)
                if asking.recv(SIZE) == token:
                    return True
    return False


def end(token: str, address: str) -> None:
    """End this machine's listener, and return when its ports are free."""
    with socket.socket(socket.AF_UNIX) as telling:
        telling.settimeout(PATIENCE)
        # Refused: it has already ended. Reset: it is ending now.
        with suppress(ConnectionError):
            telling.connect(_ending(token, address))
            telling.recv(1)


def main(command: str, token: str, *rest: str) -> None:
    """Do what the command line says."""
    if command == "listen":
        listen(token, float(rest[0]), rest[1], rest[2:])
    elif command == "ask":
        print(*ask(token, rest), sep="\n")
    else:
        end(token, *rest)


if __name__ == "__main__":
    main(*sys.argv[1:])
