"""The lab's machines behave like real machines, and nothing of them is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.lab import CommandFailed, Lab, LabError, Machine, host
from tests.lab.conftest import Boot
from tests.tooling import evidence

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).parents[2]
# A host outside the lab's network, and this host's address on the way to it.
OUTSIDE, DOORSTEP = "203.0.113.2", "203.0.113.1"
# Holds a lab, prints its directory, and boots a machine.
CHILD = """
import time
from tests.lab import Lab
with Lab() as lab:
    print(lab.private_key.parent, flush=True)
    lab.boot()
    print("booted", flush=True)
    time.sleep(60)
"""


def test_a_machine_is_a_plain_debian_with_systemd_and_without_docker(machine: Machine) -> None:
    assert "Debian GNU/Linux 13" in machine.run("cat /etc/os-release").stdout
    assert machine.run("systemctl is-system-running --wait").stdout == "running\n"
    assert machine.run("command -v docker pip", check=False).stdout == ""


def test_the_default_user_has_sudo_and_its_own_login(machine: Machine) -> None:
    result = machine.run("id -un; sudo id -un", user="deploy")

    assert (result.stdout, result.stderr) == ("deploy\nroot\n", "")


def test_user_data_decides_what_cloud_init_does(boot: Boot) -> None:
    user_data = "#cloud-config\nwrite_files: [{path: /etc/greeting, content: hello}]\n"

    named, = boot(user_data=user_data, names=["greeter"])

    assert named.run("hostname; cat /etc/greeting").stdout == "greeter\nhello"
    assert not named.ssh.answers("deploy")


def test_wrong_user_data_is_reported_with_cloud_inits_error(boot: Boot) -> None:
    with pytest.raises(LabError, match="Failed loading yaml"):
        boot(user_data="#cloud-config\nusers: [\n")


def test_a_command_gets_its_arguments_and_variables_unchanged(machine: Machine) -> None:
    result = machine.run(["printf", "%s|", "a b", "$HOME", "'"], env={"UNUSED": "x y"})
    variable = machine.run('printf %s "$GREETING"', env={"GREETING": "it's $HOME"})

    assert result.stdout == "a b|$HOME|'|"
    assert variable.stdout == "it's $HOME"


def test_a_failing_command_raises_unless_the_test_wants_the_result(machine: Machine) -> None:
    with pytest.raises(CommandFailed, match="exited with 3: oh no"):
        machine.run("echo oh no >&2; exit 3")

    assert machine.run("exit 3", check=False).code == 3


def test_commands_work_again_after_sshd_restarts(machine: Machine) -> None:
    machine.console("systemctl stop ssh.service; systemctl kill --signal=KILL ssh.service; "
                    "systemd-run --on-active=1 --timer-property=AccuracySec=10ms "
                    "systemctl start ssh.service")
    machine.ssh.close()

    assert machine.run("echo back").stdout == "back\n"


def test_a_directory_is_copied_with_its_modes(machine: Machine, tmp_path: Path) -> None:
    script = tmp_path / "tree" / "run me"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho ran\n", encoding="utf-8")
    script.chmod(0o750)

    machine.copy_in(script.parent, "/home/deploy/copied", user="deploy")

    assert machine.run("./copied/'run me'", user="deploy").stdout == "ran\n"
    assert machine.run("stat -c '%a %U' /home/deploy/copied/*").stdout == "750 deploy\n"


def test_the_network_can_be_cut_and_restored(machine: Machine) -> None:
    machine.cut_network()
    assert not machine.ssh.answers("root")
    assert "NO-CARRIER" in machine.console("ip link show eth0").stdout

    machine.restore_network()
    assert machine.run("echo back").stdout == "back\n"


def test_a_full_disk_refuses_writes_until_it_is_freed(machine: Machine) -> None:
    free = machine.free_bytes()
    write = "head -c 2000000 /dev/zero > /var/lib/docker/probe && sync"

    machine.fill_disk(leave_bytes=1_000_000)
    with pytest.raises(CommandFailed, match="No space left on device"):
        machine.run(write)

    machine.free_disk()
    machine.run(write)
    machine.run("rm /var/lib/docker/probe")
    assert machine.free_bytes() == pytest.approx(free, abs=5_000_000)


def test_a_clock_can_be_wrong_for_programs_that_ask_date(machine: Machine) -> None:
    machine.fake_clock(-42)
    asked = time.time()
    seen = [float(machine.run(f"{sudo}date +%s.%N", user=user).stdout)
            for user, sudo in (("root", ""), ("deploy", "sudo -n -- "))]

    machine.real_clock()
    assert seen == [pytest.approx(asked - 42, abs=5)] * 2
    assert float(machine.run("date +%s.%N").stdout) == pytest.approx(time.time(), abs=5)


def test_a_rebooted_machine_keeps_only_its_files(machine: Machine) -> None:
    boot_time = "stat -c %Y /proc/1"
    machine.run("touch /root/kept /run/lost; ip link add lost type bridge")
    before = machine.run(boot_time).stdout

    machine.run("sudo systemctl reboot", user="deploy", check=False)
    machine.wait_rebooted()

    assert machine.run(boot_time).stdout != before
    assert machine.run("ls /root/kept /run/lost /sys/class/net/lost", check=False).stdout \
        == "/root/kept\n"


def test_cgroups_are_writable_for_containers(machine: Machine) -> None:
    machine.run("d=$(findmnt -n -l -o TARGET -t cgroup,cgroup2 | head -n 1)/probe; "
                "mkdir $d && rmdir $d")


def test_a_machines_logs_of_a_failure_are_kept(machine: Machine, tmp_path: Path) -> None:
    folder = evidence.keep("tests/e2e/test_site.py::test_it_works[a b]", [machine], tmp_path)

    assert folder == tmp_path / "tests-e2e-test_site.py-test_it_works-a-b"
    assert "systemd" in (folder / f"{machine.name}.journal").read_text()
    assert "docker: not found" in (folder / f"{machine.name}.docker").read_text()
    assert machine.address in (folder / f"{machine.name}.system").read_text()


def test_a_machine_that_lost_power_boots_with_its_disk(machine: Machine) -> None:
    machine.run("echo precious > /root/written && sync")

    machine.lose_power()
    assert not machine.ssh.answers("root")
    machine.boot()

    assert machine.run("cat /root/written").stdout == "precious\n"


def test_a_clean_power_off_stops_the_services(
        machine: Machine) -> None:
    machine.run("systemd-run --unit=witness --service-type=oneshot --remain-after-exit "
                "--property=ExecStop='touch /root/stopped' true")

    machine.power_off()
    machine.boot()

    machine.run("test -e /root/stopped")


def test_machines_reach_each_other_and_see_each_clients_own_address(
        lab: Lab, machine: Machine, boot: Boot) -> None:
    first, (second,) = machine, boot()
    first.run("systemd-run --unit=web python3 -m http.server 80")
    first.run("until ss -ltn | grep -q :80; do sleep 0.1; done")
    visitors = (lab.gateway, lab.client_addresses[0], lab.client_addresses[-1])

    second.run(["curl", "--silent", "--fail", "--output", "/dev/null", f"http://{first.address}"])
    for visitor in visitors:
        visit(first.address, visitor)

    first.run("systemctl stop web")
    log = first.run("journalctl --unit=web --output=cat").stdout
    assert [line.split()[0] for line in log.splitlines() if "GET" in line] == [
        second.address, *visitors]


def test_a_machine_reaches_the_outside_with_the_hosts_address(
        machine: Machine, outside: Path) -> None:
    machine.run(["curl", "--silent", "--fail", "--max-time", "5", f"http://{OUTSIDE}:8000"])

    assert outside.read_text(encoding="utf-8").split()[0] == DOORSTEP


def test_two_labs_run_side_by_side(lab: Lab, machine: Machine) -> None:
    with Lab() as other:
        assert other.gateway != lab.gateway
        assert not set(other.client_addresses) & set(lab.client_addresses)

    assert machine.run("echo unharmed").stdout == "unharmed\n"


@pytest.mark.parametrize(("number", "moment"), [
    (signal.SIGINT, "booting"), (signal.SIGTERM, "booting"), (signal.SIGTERM, "booted")])
def test_a_signal_leaves_nothing_behind(lab: Lab, number: signal.Signals, moment: str) -> None:
    child, directory = start_child(moment)
    before = leftovers(directory)

    child.send_signal(number)
    child.wait(timeout=120)

    assert {"processes", "namespaces", "links", "rules", "disks", "cgroups", "files"} == before
    assert leftovers(directory) == set()


def test_an_exception_leaves_nothing_behind() -> None:
    with pytest.raises(RuntimeError, match="in the middle"):
        with Lab() as failing:
            directory = failing.private_key.parent
            raise RuntimeError("in the middle")

    assert leftovers(directory) == set()


def test_a_killed_labs_machines_end_and_the_next_lab_removes_the_rest(
        lab: Lab) -> None:
    child, directory = start_child("booted")
    child.kill()
    child.wait(timeout=120)
    host.wait_until(lambda: not leftovers(directory) & {"processes", "disks"}, 10, "its end")
    assert leftovers(directory) == {"namespaces", "links", "rules", "cgroups", "files"}

    with Lab():
        # Another lab may already use its number, but its machine is gone.
        assert not (directory / "machine1").exists()

    assert leftovers(directory) == set()


def visit(address: str, source: str) -> None:
    """Fetch a machine's page from one of the host's client addresses."""
    connection = HTTPConnection(address, timeout=5, source_address=(source, 0))
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    connection.close()


def start_child(moment: str) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that holds a lab; return when its machine boots, or has booted."""
    child = subprocess.Popen([sys.executable, "-c", CHILD], cwd=REPOSITORY, text=True,
                             stdout=subprocess.PIPE)
    assert child.stdout is not None
    directory = Path(child.stdout.readline().strip())
    if moment == "booted":
        assert child.stdout.readline() == "booted\n"
    else:
        host.wait_until(lambda: "disks" in leftovers(directory), 30, "start of the machine")
    return child, directory


def leftovers(directory: Path) -> set[str]:
    """Return what the host still has of the lab in this directory."""
    bridge = f"tally-lab{directory.name}"
    there = {
        "processes": any(str(directory).encode() in command_line(path)
                         for path in Path("/proc").glob("[0-9]*")),
        "namespaces": any(Path("/run/netns").glob(f"{bridge}-*")),
        "links": any(Path("/sys/class/net").glob(f"{bridge}*")),
        "rules": bridge in host.call(["iptables-save"]),
        "disks": str(directory) in host.call(["losetup", "--all"]),
        "cgroups": any(Path("/sys/fs/cgroup").rglob(f"{bridge}-*")),
        "mounts": str(directory) in Path("/proc/mounts").read_text(encoding="utf-8"),
        "files": directory.exists(),
    }
    return {name for name, present in there.items() if present}


def command_line(process: Path) -> bytes:
    """Return a process's arguments; none if it has just ended."""
    try:
        return (process / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Run a web server in a network without a route to the machines; yield its log."""
    log = tmp_path / "log"
    link = "tally-outside"
    host.call(["ip", "netns", "add", link])
    inside = ["ip", "netns", "exec", link]
    try:
        host.call(["ip", "link", "add", link, "type", "veth",
                   "peer", "name", "eth0", "netns", link])
        host.call(["ip", "addr", "add", f"{DOORSTEP}/30", "dev", link])
        host.call(["ip", "link", "set", link, "up"])
        host.call([*inside, "ip", "addr", "add", f"{OUTSIDE}/30", "dev", "eth0"])
        host.call([*inside, "ip", "link", "set", "eth0", "up"])
        with log.open("wb") as stream:
            server = subprocess.Popen([*inside, sys.executable, "-u", "-m", "http.server",
                                       "--bind", OUTSIDE],
                                      stdout=subprocess.DEVNULL, stderr=stream, cwd=tmp_path)
        host.wait_until(lambda: ":8000" in host.call([*inside, "ss", "-ltn"]), 10, "its start")
        yield log
        server.terminate()
        server.wait()
    finally:
        host.call(["ip", "link", "del", link])
        host.call(["ip", "netns", "del", link])
