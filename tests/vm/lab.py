"""A lab with a virtual machine on its network, which leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab import Lab, seed
from tests.lab.rootfs import rootfs
from tests.vm import hardware
from tests.vm.hardware import VirtualHardware
from tests.vm.machine import VirtualMachine


class VirtualLab(Lab):
    """A lab that can also boot a virtual machine."""

    @contextmanager
    def virtual_machine(self, name: str, user_data: str) -> Iterator[VirtualMachine]:
        """Boot a virtual machine with this user-data; it ends with the block."""
        hardware.require()
        machine = self._assemble(name, user_data)
        try:
            machine.boot()
            yield machine
        finally:
            machine.lose_power()

    def _assemble(self, name: str, user_data: str) -> VirtualMachine:
        address = self._free_address()
        number = int(address.ip) - int(self._network.subnet.network_address)
        parts = VirtualHardware(name, self._slot.directory / name, rootfs(hardware.ROOT_PACKAGES),
                                self._network.cable(number), self._network)
        parts.directory.mkdir()
        seed.write_layer(parts.directory / "layer", name, user_data,
                         seed.network_config(address, self.gateway), self.public_key)
        parts.create_disk()
        return VirtualMachine(parts, str(address.ip), self._keys)
