"""A lab: machines and their network, of which nothing is left behind."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import IPv4Interface
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab import cgroups, host, power, seed, signals, slot
from tests.lab.errors import LabError
from tests.lab.machine import Machine
from tests.lab.network import Network
from tests.lab.power import Hardware
from tests.lab.rootfs import rootfs
from tests.lab.slot import Slot
from tests.lab.ssh import Keys

CLIENT_ADDRESSES = 200


class Lab:
    """Boots machines on a private network; everything is removed when the `with` block ends.

    So it is after an exception, Ctrl-C or SIGTERM. If a lab is killed, its machines end with it,
    and the next lab removes the rest.
    """

    def __init__(self) -> None:
        self.machines: list[Machine] = []

    def __enter__(self) -> Self:
        host.require()
        with ExitStack() as unwound:
            unwound.enter_context(signals.terminate_as_interrupt())
            self._rootfs = rootfs()
            for left in slot.abandoned():
                _sweep(left)
            self._take(slot.claim())
            unwound.callback(self._close)
            _sweep(self._slot)
            self._slot.directory.mkdir(mode=0o700, parents=True)
            self._keys.create()
            self._network.create()
            self._unwound = unwound.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._unwound.close()

    @property
    def gateway(self) -> str:
        """The host's own address on the machines' network."""
        return self._network.gateway

    @property
    def client_addresses(self) -> tuple[str, ...]:
        """The host's addresses from which tests may visit the machines."""
        return tuple(str(self._slot.clients[n]) for n in range(1, CLIENT_ADDRESSES + 1))

    @property
    def private_key(self) -> Path:
        return self._keys.private

    @property
    def public_key(self) -> str:
        return self._keys.public

    @property
    def known_hosts(self) -> Path:
        """The host keys of all machines that have booted, in OpenSSH's format."""
        return self._keys.known_hosts

    def boot(self, count: int = 1, user_data: str | None = None,
             names: Sequence[str] | None = None) -> list[Machine]:
        """Boot machines together and return them when cloud-init is done on all.

        The default user-data makes a user `deploy` with sudo and the lab's key. Root can also
        log in with the lab's key, unless the user-data forbids it.
        """
        user_data = user_data or seed.default_user_data(self.public_key)
        fresh = [self._create(user_data, name) for name in names or [""] * count]
        for machine in fresh:
            machine.switch_on()
        for machine in fresh:
            machine.wait_ready()
        return fresh

    def discard(self, machine: Machine) -> None:
        """End a machine that is no longer needed, and free its memory and disk."""
        machine.lose_power()
        machine.remove()
        self.machines.remove(machine)

    def _take(self, taken: Slot) -> None:
        self._slot = taken
        self._network = Network(taken)
        self._keys = Keys(taken.directory)

    def _create(self, user_data: str, name: str) -> Machine:
        address = self._free_address()
        number = int(address.ip) - int(self._network.subnet.network_address)
        name = name or f"machine{number - 1}"
        hardware = Hardware(name, self._slot.directory / name, self._rootfs,
                            self._network.cable(number), self._network)
        hardware.directory.mkdir()
        seed.write_layer(hardware.directory / "layer", name, user_data,
                         seed.network_config(address, self.gateway), self.public_key)
        hardware.create_disk()
        machine = Machine(hardware, str(address.ip), self._keys)
        self.machines.append(machine)
        return machine

    def _free_address(self) -> IPv4Interface:
        """Return the first address that no machine has, after the gateway's."""
        taken = {self.gateway, *(machine.address for machine in self.machines)}
        for address in self._network.subnet.hosts():
            if str(address) not in taken:
                return IPv4Interface((address, self._network.subnet.prefixlen))
        raise LabError(f"{len(self.machines)} machines are all that a lab has addresses for")

    def _close(self) -> None:
        """End every machine, then remove the network and the files; signals are deferred."""
        with signals.deferred():
            for machine in self.machines:
                machine.cut_power()
            for machine in self.machines:
                machine.lose_power()
            _sweep(self._slot)
            self._slot.release()


def _sweep(taken: Slot) -> None:
    """Remove everything with this lab's number, from this process or from a dead one.

    Files come last: a machine's disk must be free before its directory is removed.
    """
    for disk in taken.directory.glob("*/disk.img"):
        power.wait_disk_free(disk, timeout=120)
    cgroups.remove(f"{taken.bridge}-*")
    Network(taken).remove()
    if taken.directory.exists():
        shutil.rmtree(taken.directory)
