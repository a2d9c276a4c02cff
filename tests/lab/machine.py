"""One machine: run commands on it, copy files to it, and cause its failures."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.lab import cgroups, host
from tests.lab.errors import LabError
from tests.lab.power import Hardware, Power
from tests.lab.ssh import Connection, Keys, Result, checked, with_environment

BOOT_TIMEOUT = 300.0
BALLAST = "/var/tmp/ballast"
# Comes before /usr/bin in every PATH, sudo's included.
CLOCK = "/usr/local/bin/date"
CONSOLE_ENVIRONMENT = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}


class Machine:
    """A Debian machine; the host and the other machines reach it at `address`."""

    def __init__(self, hardware: Hardware, address: str, keys: Keys) -> None:
        self.name = hardware.name
        self.address = address
        self.ssh = Connection(address, keys)
        self._hardware = hardware
        self._keys = keys
        self._power = Power(hardware)
        self._last_leader: int | None = None

    def __repr__(self) -> str:
        return f"<Machine {self.name} {self.address}>"

    def run(self, command: str | Sequence[str], *, user: str = "root", check: bool = True,
            timeout: float | None = 600, env: Mapping[str, str] | None = None) -> Result:
        """Run a shell line or an argument list over SSH; raise CommandFailed if it fails."""
        result = self.ssh.run(command, user, timeout, env or {})
        return checked(command, result) if check else result

    def console(self, command: str | Sequence[str], *, check: bool = True,
                timeout: float | None = 600) -> Result:
        """Run a command as root without SSH, so also on an isolated, full or hardened machine."""
        line = command if isinstance(command, str) else shlex.join(command)
        argv = ["nsenter", f"--target={self._leader()}", "--all", "env", "--ignore-environment",
                "--chdir=/", "/bin/sh", "-c", with_environment(line, CONSOLE_ENVIRONMENT)]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=timeout, check=False)
        result = Result(done.stdout, done.stderr, done.returncode)
        return checked(command, result) if check else result

    def copy_in(self, source: Path | str, destination: str, *, user: str = "root") -> None:
        """Copy a file or a directory of the host to the machine."""
        self.ssh.copy_in(Path(source), destination, user)

    def switch_on(self) -> None:
        """Start booting; return at once."""
        self._power.switch_on()

    def wait_ready(self, timeout: float = BOOT_TIMEOUT) -> None:
        """Wait until cloud-init is done and SSH answers; raise LabError with the reason if not."""
        host.wait_until(self._runs_systemd, timeout, f"{self.name}: start of systemd")
        status = self.console("cloud-init status --wait --long", check=False, timeout=timeout)
        if status.code != 0:
            raise LabError(f"cloud-init on {self.name}: {status.stdout}{status.stderr}")
        self._pin_host_keys()
        host.wait_until(self._listens, timeout, f"{self.name}: start of sshd")
        self._last_leader = self._leader()

    def boot(self) -> None:
        """Switch the machine on with its existing disk, and wait until it is ready."""
        self.switch_on()
        self.wait_ready()

    def power_off(self) -> None:
        """Shut the machine down cleanly."""
        self.ssh.close()
        self.console("systemctl poweroff", check=False)
        self._power.wait_off(timeout=120)

    def lose_power(self) -> None:
        """Cut the machine's power, whatever it is doing."""
        self.cut_power()
        self._power.wait_off(timeout=120)

    def cut_power(self) -> None:
        """Cut the power without waiting for the end, for several machines at once."""
        self._power.cut()
        self.ssh.close()

    def reboot(self) -> None:
        """Reboot cleanly and wait until the machine is ready again."""
        self.ssh.close()
        self.console("systemctl reboot", check=False)
        self.wait_rebooted()

    def wait_rebooted(self) -> None:
        """Wait until a machine that is rebooting is ready again."""
        host.wait_until(lambda: self._power.leader() not in (self._last_leader, None),
                        BOOT_TIMEOUT, f"{self.name}: reboot")
        self.ssh.close()
        self.wait_ready()

    def cut_network(self) -> None:
        """Cut the network, also over reboots."""
        self.ssh.close()
        self._hardware.cut_marker.touch()
        self._hardware.network.carry(self._hardware.cable, on=False)

    def restore_network(self) -> None:
        """Restore the network."""
        self._hardware.cut_marker.unlink(missing_ok=True)
        self._hardware.network.carry(self._hardware.cable, on=True)

    def fill_disk(self, leave_bytes: int = 0) -> None:
        """Fill the machine's disk until this many bytes are free; the image stays sparse."""
        ballast = self.free_bytes() - leave_bytes
        if ballast > 0:
            self.console(["fallocate", "--length", str(ballast), BALLAST])

    def free_disk(self) -> None:
        """Undo fill_disk."""
        self.console(["rm", "--force", BALLAST])

    def free_bytes(self) -> int:
        """Return the free bytes on the machine's disk."""
        return int(self.console("df --output=avail --block-size=1 / | tail -n 1").stdout)

    def fake_clock(self, seconds: int) -> None:
        """Replace date(1) by one that is ahead or behind: all machines share the host's clock."""
        script = f'#!/bin/sh\nexec /usr/bin/date --date="{seconds} seconds" "$@"\n'
        self.console(f"printf %s {shlex.quote(script)} > {CLOCK} && chmod 755 {CLOCK}")

    def real_clock(self) -> None:
        """Undo fake_clock."""
        self.console(["rm", "--force", CLOCK])

    def remove(self) -> None:
        """Remove a machine that is off, with its disk and its cable."""
        self._hardware.network.unplug(self._hardware.cable)
        cgroups.remove(self._hardware.cgroup)
        shutil.rmtree(self._hardware.directory)

    def _leader(self) -> int:
        leader = self._power.leader()
        if leader is None:
            raise self._off()
        return leader

    def _off(self) -> LabError:
        console = self._hardware.directory / "console"
        words = console.read_text(encoding="utf-8", errors="replace") if console.exists() else ""
        return LabError(f"{self.name} is off; its console ends with: {words[-500:]}")

    def _runs_systemd(self) -> bool:
        if self._power.is_off():
            raise self._off()
        if self._power.leader() is None:
            return False
        return self.console("systemctl show --property=Version", check=False).code == 0

    def _listens(self) -> bool:
        return self.console("ss --no-header --listening --tcp sport = :22").stdout != ""

    def _pin_host_keys(self) -> None:
        """Pin the machine's host keys, so that SSH never trusts one on first contact."""
        keys = self.console("cat /etc/ssh/ssh_host_*_key.pub").stdout.splitlines()
        known = self._keys.known_hosts
        others = [line for line in known.read_text(encoding="ascii").splitlines()
                  if line.split()[0] != self.address]
        lines = others + [" ".join([self.address, *key.split()[:2]]) for key in keys]
        known.write_text("\n".join(lines) + "\n", encoding="ascii")
