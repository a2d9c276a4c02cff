"""Commands run as root over SSH, and a failed login is explained."""

import hashlib
import io
import shutil
import signal
import socket
import stat
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest

from stack.errors import Locked
from stack.inventory import Host, Ssh
from stack.inventory.settings import ROOT
from stack.machines import ssh
from stack.machines.host_keys import Pinned
from stack.machines.machine import CommandFailed, Completed
from stack.machines.ssh import Gone, RemoteMachine
from tests.support.failing import error_of
from tests.support.ports import free_port
from tests.support.sshd import Sshd, away_from_home, keypair, prepared, running

pytestmark = pytest.mark.service

UGLY = "$HOME `id` \"two\"  spaces 'one'\nnext line; * ? [a] \\ Grüße ☃ !1 ~"
# Holds a lock until it is killed.
HOLDER = """
import sys, time
from pathlib import Path
from stack.machines.host_keys import Pinned
from stack.inventory import Host, Ssh
from stack.machines.ssh import RemoteMachine

known, port, key, lock = sys.argv[1:]
machine = RemoteMachine(Host("127.0.0.1", "manager"), Ssh("deploy", int(port), Path(key)),
                        Pinned(Path(known), accept=True))
machine.connect()
with machine.exclusively(lock):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with away_from_home(), running() as sshd:
        yield sshd


@pytest.fixture(scope="module", params=["root", "deploy"])
def machine(sshd: Sshd, request: pytest.FixtureRequest,
            tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteMachine]:
    """The machine, with a login as root and one as a user with sudo."""
    machine = sshd.machine(tmp_path_factory.mktemp("pinned") / "known_hosts", request.param)
    machine.connect()
    yield machine
    machine.close()


@pytest.fixture
def mortal(sshd: Sshd, tmp_path: Path) -> Iterator[tuple[Sshd, RemoteMachine]]:
    """A connected machine that a test may break."""
    with running() as fragile:
        machine = fragile.machine(tmp_path / "known_hosts")
        machine.connect()
        yield fragile, machine
        machine.close()


@pytest.fixture
def home(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operator's home, with an empty .ssh."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home/.ssh").mkdir(parents=True)
    return tmp_path / "home"


def reached(host: str, ssh: Ssh, known_hosts: Path) -> RemoteMachine:
    return RemoteMachine(Host(host, "manager"), ssh, Pinned(known_hosts, accept=True))


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_command_runs_as_root(machine: RemoteMachine) -> None:
    assert machine.run(["id", "-u"]) == Completed(0, "0\n", "")


def test_output_errors_and_code_are_returned(machine: RemoteMachine) -> None:
    done = machine.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert done == Completed(3, "out\n", "err\n")


def test_text_is_passed_to_a_command(machine: RemoteMachine) -> None:
    assert machine.run(["cat"], stdin="Grüße\n").stdout == "Grüße\n"


def test_a_files_bytes_are_passed_to_a_command(machine: RemoteMachine) -> None:
    data = bytes(range(256)) * 12_000
    assert machine.run(["sha256sum"], stdin=io.BytesIO(data)).stdout.split()[0] \
        == hashlib.sha256(data).hexdigest()


def test_a_command_without_input_doesnt_wait_for_any(machine: RemoteMachine) -> None:
    assert machine.run(["cat"], timeout=5) == Completed(0, "", "")


def test_a_command_may_leave_its_input_unread(machine: RemoteMachine) -> None:
    assert machine.run(["true"], stdin=io.BytesIO(bytes(10_000_000))) == Completed(0, "", "")


def test_arguments_arrive_unchanged(machine: RemoteMachine) -> None:
    assert machine.run(["printf", "%s|", UGLY, "", "-n"]).stdout == f"{UGLY}||-n|"


def test_variables_arrive_unchanged(machine: RemoteMachine) -> None:
    done = machine.run(["printenv", "UGLY", "PATH"], env={"UGLY": UGLY})
    assert done.stdout.startswith(f"{UGLY}\n/")


def test_a_command_runs_in_its_folder(machine: RemoteMachine, tmp_path: Path) -> None:
    folder = tmp_path / "a folder $HOME"
    folder.mkdir()
    done = machine.run(["sh", "-c", 'pwd; echo "$A"'], cwd=PurePosixPath(folder), env={"A": "b"})
    assert done.stdout == f"{folder}\nb\n"


@pytest.mark.parametrize("limit", [None, 5.0])
@pytest.mark.parametrize("env", [{}, {"A": "b"}])
def test_a_missing_command_exits_with_127(
        machine: RemoteMachine, env: dict[str, str], limit: float | None) -> None:
    done = machine.run(["no-such-command"], env=env, timeout=limit)
    assert (done.code, "no-such-command" in done.stderr) == (127, True)


def test_a_file_that_cant_be_run_exits_with_126(machine: RemoteMachine) -> None:
    assert machine.run(["/etc/passwd"]).code == 126


def test_a_command_that_times_out_is_killed_with_its_children(
        machine: RemoteMachine, tmp_path: Path) -> None:
    place = tmp_path / "pids"
    begun = time.monotonic()
    done = machine.run(["sh", "-c", f"sleep 60 & echo $$ $! > {place}; wait"], timeout=2)
    assert done == Completed(124, "", "no answer within 2 s")
    assert time.monotonic() - begun < 10
    for pid in place.read_text().split():
        assert not machine.run(["test", "-e", f"/proc/{pid}"]).ok


def test_a_command_that_is_in_time_keeps_its_code(machine: RemoteMachine) -> None:
    assert machine.run(["sh", "-c", "echo x; exit 7"], timeout=5) == Completed(7, "x\n", "")


def test_a_command_ended_by_a_signal_has_a_shells_exit_code(machine: RemoteMachine) -> None:
    assert machine.run(["sh", "-c", "echo so far; kill -KILL $$"]).code == 128 + signal.SIGKILL
    assert machine.run(["echo", "still here"]).stdout == "still here\n"


def test_long_stdout_and_stderr_are_complete(machine: RemoteMachine) -> None:
    done = machine.run(["sh", "-c", "head -c 4000000 /dev/zero | tr '\\0' a & "
                                    "head -c 4000000 /dev/zero | tr '\\0' b >&2; wait"])
    assert done == Completed(0, "a" * 4_000_000, "b" * 4_000_000)


def test_output_that_is_not_text_is_still_shown(machine: RemoteMachine) -> None:
    assert machine.run(["printf", r"a\377b"]) == Completed(0, "a\ufffdb", "")


def test_more_commands_than_sshd_allows_sessions_wait_for_each_other(
        machine: RemoteMachine) -> None:
    with ThreadPoolExecutor(25) as pool:
        results = list(pool.map(
            lambda number: machine.must(["sh", "-c", f"sleep 0.1; echo {number}"]), range(25)))
    assert results == [f"{number}\n" for number in range(25)]


@pytest.mark.parametrize("stdin", [None, "unread\n" * 5000])
def test_commands_that_complain_and_end_at_once_are_never_late(
        machine: RemoteMachine, stdin: str | None) -> None:
    def measured(_: int) -> float:
        begun = time.monotonic()
        done = machine.run(["sh", "-c", "echo err >&2"], stdin=stdin)
        assert done == Completed(0, "", "err\n")
        return time.monotonic() - begun
    with ThreadPoolExecutor(10) as pool:
        times = list(pool.map(measured, range(400)))
    # Before the next sign of life, which would wake whoever has missed the end.
    assert max(times) < max(0.8 * ssh.KEEPALIVE, 20 * statistics.median(times))


def test_no_command_waits_forever_for_a_session(
        mortal: tuple[Sshd, RemoteMachine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "PATIENCE", 0.3)
    _, machine = mortal
    held = [machine._channel("sleep") for _ in range(10)]
    assert error_of(lambda: machine.run(["true"])) == \
        "127.0.0.1: sshd refuses more sessions: see MaxSessions in its sshd_config(5)"
    held[0].close()
    assert machine.run(["true"]).ok


def test_a_file_is_written_with_its_mode_and_read(machine: RemoteMachine, tmp_path: Path) -> None:
    place = tmp_path / "new folder" / "file"
    assert machine.read(str(place)) is None
    assert machine.write(str(place), "Grüße\n", mode="0640") is True
    assert (place.read_text(), stat.S_IMODE(place.stat().st_mode)) == ("Grüße\n", 0o640)
    assert machine.read(str(place)) == "Grüße\n"


def test_an_unchanged_file_is_left_alone(machine: RemoteMachine, tmp_path: Path) -> None:
    place = tmp_path / "file"
    machine.write(str(place), "text")
    before = place.stat()
    assert machine.write(str(place), "text") is False
    assert (place.stat().st_ino, place.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_reader_of_a_replaced_file_keeps_the_old_content(
        machine: RemoteMachine, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("old")
    with place.open() as reader:
        assert machine.write(str(place), "new") is True
        assert reader.read() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_copied_with_its_modes_and_then_removed(
        machine: RemoteMachine, tmp_path: Path) -> None:
    (tmp_path / "sub folder").mkdir(mode=0o750)
    (tmp_path / "sub folder/program").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "sub folder/program").chmod(0o755)
    (tmp_path / "secret").write_bytes(b"\0\377")
    (tmp_path / "secret").chmod(0o600)
    with machine.holding(tmp_path) as there:
        assert there != tmp_path
        assert machine.must(["./program"], cwd=there / "sub folder") == "ran\n"
        assert machine.must(["stat", "--format=%a", f"{there}/sub folder", f"{there}/secret"]) \
            == "750\n600\n"
        assert machine.must(["od", "-An", "-tx1", f"{there}/secret"]) == " 00 ff\n"
    assert not machine.run(["test", "-e", str(there)]).ok


def test_a_folder_is_removed_after_a_failure_too(machine: RemoteMachine, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), machine.holding(tmp_path) as there:
        raise ZeroDivisionError
    assert not machine.run(["test", "-e", str(there)]).ok


def test_only_one_command_at_a_time_holds_a_lock(machine: RemoteMachine, tmp_path: Path) -> None:
    lock = str(tmp_path / "a lock")
    with machine.exclusively(lock):
        assert error_of(machine.exclusively(lock).__enter__, Locked) == (
            "another ./fab bootstrap is at work on 127.0.0.1: try again when it has ended")
    wait_until_free(machine, lock)


def test_a_lock_that_cant_be_opened_is_not_reported_as_held(machine: RemoteMachine) -> None:
    assert error_of(machine.exclusively("/nonexistent/lock").__enter__, CommandFailed) == (
        "flock /nonexistent/lock … ended with 1: /nonexistent/lock can't be locked")


def test_a_lock_is_free_after_its_holder_is_killed(
        sshd: Sshd, machine: RemoteMachine, tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "known_hosts"),
                           str(sshd.port), str(sshd.key), lock],
                          cwd=ROOT, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout and holder.stdout.readline() == b"held\n"
            assert error_of(machine.exclusively(lock).__enter__, Locked)
        finally:
            holder.kill()
    wait_until_free(machine, lock)


def wait_until_free(machine: RemoteMachine, lock: str) -> None:
    wait_for(lambda: machine.run(["flock", "--nonblock", lock, "true"]).ok, seconds=5)


@pytest.mark.parametrize("work", [
    lambda machine: machine.run(["sleep", "60"]),
    lambda machine: machine.run(["sleep", "60"], timeout=60)])
def test_a_connection_lost_during_a_command_is_reported_at_once(
        mortal: tuple[Sshd, RemoteMachine], work: Callable[[RemoteMachine], object]) -> None:
    sshd, machine = mortal
    cut = threading.Timer(0.5, sshd.cut)
    cut.start()
    begun = time.monotonic()
    line = error_of(lambda: work(machine), Gone)
    assert line == ("lost contact with 127.0.0.1 while running sleep: "
                    "when it is back, run the same command again")
    assert 0.4 < time.monotonic() - begun < 3
    assert not machine.alive


def test_a_lost_machine_accepts_no_further_command(
        mortal: tuple[Sshd, RemoteMachine]) -> None:
    sshd, machine = mortal
    assert machine.alive
    sshd.cut()
    for _ in range(2):
        assert error_of(lambda: machine.run(["true"]), Gone).startswith(
            "lost contact with 127.0.0.1 while running true")


def test_a_lost_machines_folder_hides_no_other_failure(
        mortal: tuple[Sshd, RemoteMachine], tmp_path: Path) -> None:
    sshd, machine = mortal
    (tmp_path / "folder").mkdir()
    with pytest.raises(ZeroDivisionError), machine.holding(tmp_path / "folder") as there:
        sshd.cut()
        raise ZeroDivisionError
    # Without a connection, the command couldn't remove it.
    shutil.rmtree(there)


def test_closing_frees_locks_and_ends_the_connection(
        mortal: tuple[Sshd, RemoteMachine], tmp_path: Path) -> None:
    sshd, machine = mortal
    lock = str(tmp_path / "lock")
    holding = machine.exclusively(lock)
    holding.__enter__()
    machine.close()
    assert not machine.alive
    again = sshd.machine(tmp_path / "known_hosts")
    again.connect()
    wait_until_free(again, lock)
    again.close()


def test_the_agents_key_is_used(
        sshd: Sshd, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", tmp_path / "agent"],
                             stdout=subprocess.DEVNULL)
    try:
        wait_for((tmp_path / "agent").exists)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        subprocess.run(["ssh-add", "-q", sshd.key], check=True)
        machine = reached("127.0.0.1", Ssh("deploy", sshd.port), tmp_path / "known_hosts")
        machine.connect()
        assert machine.must(["echo", "in"]) == "in\n"
        machine.close()
    finally:
        agent.terminate()
        agent.wait()


def test_a_key_in_the_operators_home_is_used(sshd: Sshd, home: Path, tmp_path: Path) -> None:
    (home / ".ssh/id_ed25519").write_bytes(sshd.key.read_bytes())
    (home / ".ssh/id_ed25519").chmod(0o600)
    machine = reached("127.0.0.1", Ssh("deploy", sshd.port), tmp_path / "known_hosts")
    machine.connect()
    machine.close()


def configure(home: Path, host: str, sshd: Sshd, more: str = "") -> None:
    """Add a machine to the operator's ~/.ssh/config."""
    with (home / ".ssh/config").open("a") as config:
        config.write(f"Host {host}\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User root\n"
                     f"  IdentityFile {sshd.key}\n  {more}\n")


def test_the_operators_ssh_config_names_machine_user_and_key(
        sshd: Sshd, home: Path, tmp_path: Path) -> None:
    configure(home, "one.example.org", sshd)
    machine = reached("one.example.org", Ssh(), tmp_path / "known_hosts")
    assert (machine.name, machine.address, machine.port, machine.user) \
        == ("one.example.org", "127.0.0.1", sshd.port, "root")
    machine.connect()
    assert machine.must(["printenv", "USER"]) == "root\n"
    machine.close()


def test_the_inventory_takes_precedence_over_the_ssh_config(
        sshd: Sshd, home: Path, tmp_path: Path) -> None:
    (home / ".ssh/config").write_text(
        "Host 127.0.0.1\n  Port 9\n  User nobody\n  IdentityFile /nonexistent\n")
    machine = reached("127.0.0.1", sshd.ssh(), tmp_path / "known_hosts")
    machine.connect()
    assert machine.must(["printenv", "SUDO_USER"]) == "deploy\n"
    machine.close()


def test_the_default_user_is_cloud_inits(home: Path, tmp_path: Path) -> None:
    machine = reached("192.0.2.9", Ssh(), tmp_path / "known_hosts")
    assert (machine.user, machine.port) == ("deploy", 22)


def test_a_machine_behind_a_jump_host_is_reached_and_both_keys_pinned(
        sshd: Sshd, home: Path, tmp_path: Path) -> None:
    with running() as jump:
        configure(home, "jump", jump)
        configure(home, "far", sshd, "ProxyJump jump")
        machine = reached("far", Ssh(), tmp_path / "known_hosts")
        machine.connect()
        assert machine.must(["echo", "far"]) == "far\n"
        pinned = {line.split()[0] for line in
                  (tmp_path / "known_hosts").read_text().splitlines()}
        assert pinned == {f"[127.0.0.1]:{port}" for port in (jump.port, sshd.port)}
        machine.close()


def test_a_booting_machine_behind_a_jump_host_is_waited_for(
        sshd: Sshd, home: Path, tmp_path: Path) -> None:
    with prepared() as late:
        configure(home, "jump", sshd)
        configure(home, "far", late, "ProxyJump jump")
        start = threading.Timer(0.5, late.start)
        start.start()
        machine = reached("far", Ssh(), tmp_path / "known_hosts")
        machine.connect(patience=10)
        start.join()
        machine.close()


def test_a_booting_machine_is_waited_for(tmp_path: Path) -> None:
    with prepared() as sshd:
        start = threading.Timer(0.5, sshd.start)
        start.start()
        machine = sshd.machine(tmp_path / "known_hosts")
        machine.connect(patience=10)
        start.join()
        assert machine.run(["true"]).ok
        machine.close()


def refusal(host: str, ssh: Ssh, tmp_path: Path) -> str:
    return error_of(lambda: reached(host, ssh, tmp_path / "known_hosts").connect())


def test_a_machine_that_accepts_no_key_is_named_with_a_command_to_try(
        sshd: Sshd, home: Path, tmp_path: Path) -> None:
    ssh = sshd.ssh(key=keypair(tmp_path / "stranger"))
    where = f"deploy@127.0.0.1:{sshd.port}"
    assert refusal("127.0.0.1", ssh, tmp_path) == (
        f"127.0.0.1: {where} accepts none of the keys from the inventory, the agent and ~/.ssh: "
        f"try: ssh -p {sshd.port} deploy@127.0.0.1")


def test_an_operator_without_a_key_gets_the_same_message(
        sshd: Sshd, home: Path, tmp_path: Path) -> None:
    assert refusal("127.0.0.1", Ssh("deploy", sshd.port), tmp_path).startswith(
        f"127.0.0.1: deploy@127.0.0.1:{sshd.port} accepts none of the keys from the inventory")


def test_a_key_with_a_passphrase_is_left_to_the_agent(
        sshd: Sshd, home: Path, tmp_path: Path) -> None:
    ssh = sshd.ssh(key=keypair(tmp_path / "locked", passphrase="secret"))
    assert refusal("127.0.0.1", ssh, tmp_path).startswith(
        f"127.0.0.1: the key for deploy@127.0.0.1:{sshd.port} has a passphrase: ssh-add it first")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert refusal("127.0.0.1", Ssh(key=tmp_path / "gone"), tmp_path) == (
        f"127.0.0.1: there is no key {tmp_path}/gone: name yours in the inventory, ssh.key")


def test_a_port_on_which_nothing_listens_is_named(home: Path, tmp_path: Path) -> None:
    port = free_port()
    assert refusal("127.0.0.1", Ssh(port=port), tmp_path) == (
        f"127.0.0.1: no connection to deploy@127.0.0.1:{port} (Connection refused): "
        f"try: ssh -p {port} deploy@127.0.0.1")


def test_a_name_without_an_address_is_named(home: Path, tmp_path: Path) -> None:
    assert refusal("no-such-host.invalid", Ssh(), tmp_path) == (
        "no-such-host.invalid: there is no address for the name no-such-host.invalid: "
        "try: ssh -p 22 deploy@no-such-host.invalid")


def test_a_machine_that_never_answers_times_out(
        home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "CONNECT_TIMEOUT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        begun = time.monotonic()
        line = refusal("127.0.0.1", Ssh(port=port), tmp_path)
    assert line.startswith(
        f"127.0.0.1: no answer from deploy@127.0.0.1:{port} within 1 s")
    assert time.monotonic() - begun < 3


def test_a_user_who_needs_a_password_for_sudo_is_refused(tmp_path: Path) -> None:
    with prepared() as sshd:
        sshd.sudoers("deploy ALL=(ALL) ALL\n")
        sshd.start()
        machine = sshd.machine(tmp_path / "known_hosts")
        assert error_of(machine.connect) == (
            "127.0.0.1: deploy can't become root there (sudo: a password is required): "
            "let deploy run sudo without a password, as cloud-init's user may")
        machine.close()
