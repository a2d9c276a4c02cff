"""Use a virtual machine like its operator: over SSH, and through its console's output."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence

from tests.lab import host
from tests.lab.errors import LabError
from tests.lab.power import Power
from tests.lab.ssh import Connection, Keys, Result, checked
from tests.vm.hardware import VirtualHardware

USER = "deploy"
# The project's user-data, which installs Docker, takes about 200 s on two cores.
BOOT_TIMEOUT = 900.0
# cloud-init prints them on the console, which only the machine's owner can read.
HOST_KEYS = re.compile(r"BEGIN SSH HOST KEY KEYS-+\s+(.*?)\s+-+END SSH HOST KEY KEYS", re.DOTALL)
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class VirtualMachine:
    """A virtual machine that only its operator can log in to."""

    def __init__(self, hardware: VirtualHardware, address: str, keys: Keys) -> None:
        self.name = hardware.name
        self.address = address
        self.ssh = Connection(address, keys)
        self._hardware = hardware
        self._keys = keys
        self._power = Power(hardware)

    def run(self, command: str | Sequence[str], *, check: bool = True,
            timeout: float | None = 600, env: Mapping[str, str] | None = None) -> Result:
        """Run a shell line or an argument list as the operator; raise CommandFailed if it fails."""
        result = self.ssh.run(command, USER, timeout, env or {})
        return checked(command, result) if check else result

    def boot(self) -> None:
        """Switch the machine on for the first time and wait until cloud-init is done."""
        self._power.switch_on()
        self._pin_host_keys(self._wait_for_host_keys(time.monotonic() + BOOT_TIMEOUT))
        status = self.run("cloud-init status --wait --long", check=False)
        if status.code != 0:
            raise LabError(f"cloud-init on {self.name}: {status.stdout}{status.stderr}")

    def reboot(self) -> None:
        """Reboot cleanly and return as soon as SSH answers again."""
        before = self.run(["cat", BOOT_ID]).stdout.strip()
        self.run("sudo systemctl reboot", check=False)
        self.ssh.close()
        another = self.ssh.argv(USER, f"test $(cat {BOOT_ID}) != {before}")
        host.wait_until(lambda: host.succeeds(another), BOOT_TIMEOUT, f"{self.name}: reboot")

    def lose_power(self) -> None:
        """Cut the machine's power, whatever it is doing."""
        self._power.cut()
        self.ssh.close()
        self._power.wait_off(timeout=30)

    def _wait_for_host_keys(self, deadline: float) -> list[str]:
        """Read the console until it shows the host keys, at the end of cloud-init."""
        while not (found := HOST_KEYS.search(self._console())):
            if self._power.is_off() or time.monotonic() > deadline:
                raise LabError(f"{self.name} didn't boot; its console ends with: "
                               f"{self._console()[-2000:]}")
            time.sleep(1)
        return found[1].splitlines()

    def _console(self) -> str:
        console = self._hardware.console
        return console.read_text(encoding="utf-8", errors="replace") if console.exists() else ""

    def _pin_host_keys(self, keys: Sequence[str]) -> None:
        """Pin the machine's host keys, so that SSH never trusts one on first contact."""
        with self._keys.known_hosts.open("a", encoding="ascii") as known:
            known.writelines(" ".join([self.address, *key.split()[:2]]) + "\n" for key in keys)
