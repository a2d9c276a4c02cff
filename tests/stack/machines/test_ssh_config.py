"""What ssh's own client says about a host holds: its keys, its agent and the way there."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from stack import progress
from stack.inventory import Host, Ssh
from stack.machines import ssh_config
from stack.machines.host_keys import Pinned
from stack.machines.ssh import RemoteMachine
from stack.machines.ssh_config import resolve, route
from stack.machines.ssh_keys import Agent, Keys, public_part
from tests.support.executables import executable
from tests.support.failing import error_of
from tests.support.ports import free_port
from tests.support.ssh_agent import agent
from tests.support.sshd import Sshd, away_from_home, keypair, running

pytestmark = pytest.mark.service

# Connects its input and output to a port.
CONNECT = "bash -c 'exec 3<>/dev/tcp/%h/%p; cat <&3 & exec cat >&3'"


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with away_from_home(), running() as sshd:
        yield sshd


@pytest.fixture(scope="module")
def jumps(sshd: Sshd) -> Iterator[tuple[Sshd, Sshd]]:
    """Two jump hosts, which let in whom the machine lets in."""
    with running() as one, running() as two:
        for jump in (one, two):
            jump.authorize(sshd.key.with_suffix(".pub"))
        yield one, two


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eight keys that no machine takes."""
    folder = tmp_path_factory.mktemp("eight")
    return [keypair(folder / f"key{number}") for number in range(8)]


@pytest.fixture
def crowded(sshd: Sshd, eight: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
            ) -> Iterator[Path]:
    """The operator's agent; the right key is the last of nine."""
    with agent(tmp_path / "agent", *eight, sshd.key) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operator's home, without an agent."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "home/.ssh").mkdir(parents=True)
    return tmp_path / "home"


def configure(home: Path, text: str) -> None:
    (home / ".ssh/config").write_text(text)


def at(sshd: Sshd) -> str:
    return f"HostName 127.0.0.1\n Port {sshd.port}\n"


def machine(home: Path, ssh: Ssh = Ssh(), name: str = "far") -> RemoteMachine:
    return RemoteMachine(Host(name, "manager"), ssh, Pinned(home / "known_hosts", accept=True))


def log_in(home: Path, ssh: Ssh = Ssh(), name: str = "far") -> str:
    """Log in, and return the user that the login is for."""
    reached = machine(home, ssh, name)
    reached.connect()
    user = reached.must(["sh", "-c", 'echo "${SUDO_USER:-root}"']).strip()
    reached.close()
    return user


def refusal(home: Path, ssh: Ssh = Ssh(), name: str = "far") -> str:
    return error_of(machine(home, ssh, name).connect)


def pinned(home: Path) -> list[str]:
    """Return the hosts in known_hosts, in the order of the first login."""
    return [line.split()[0] for line in (home / "known_hosts").read_text().splitlines()]


def test_an_agent_with_too_many_keys_is_called_so_with_a_remedy(
        sshd: Sshd, home: Path, crowded: Path) -> None:
    configure(home, f"Host far\n {at(sshd)}")
    assert refusal(home) == (
        f"far: deploy@127.0.0.1:{sshd.port} ended the login after 6 keys (Too many authentication "
        "failures): name the right key, with IdentitiesOnly yes and IdentityFile in "
        "~/.ssh/config, or with ssh.key in the inventory")


def test_with_identities_only_no_other_key_of_the_agents_is_offered(
        sshd: Sshd, home: Path, crowded: Path) -> None:
    configure(home, f"Host far\n {at(sshd)} IdentitiesOnly yes\n IdentityFile {sshd.key}\n")
    assert log_in(home) == "deploy"


def test_with_identities_only_the_agent_signs_for_a_public_key_file(
        sshd: Sshd, home: Path, crowded: Path) -> None:
    shutil.copy(sshd.key.with_suffix(".pub"), home / "the.pub")
    configure(home, f"Host far\n {at(sshd)} IdentitiesOnly yes\n IdentityFile {home}/the.pub\n")
    assert log_in(home) == "deploy"


def test_with_identities_only_the_agents_right_key_isnt_offered_unasked(
        sshd: Sshd, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(home, f"Host far\n {at(sshd)} IdentitiesOnly yes\n IdentityFile ~/nothing\n")
    with agent(tmp_path / "agent", sshd.key) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        assert "accepts none of the keys" in refusal(home)


def test_a_configured_key_that_the_agent_holds_comes_first(
        sshd: Sshd, home: Path, crowded: Path) -> None:
    configure(home, f"Host far\n {at(sshd)} IdentityFile {sshd.key}\n")
    assert log_in(home) == "deploy"


def test_the_inventorys_key_is_enough_beside_a_full_agent(
        sshd: Sshd, eight: list[Path], home: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    configure(home, f"Host far\n {at(sshd)}")
    with agent(tmp_path / "agent", *eight) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        assert log_in(home, Ssh(key=sshd.key)) == "deploy"


def test_the_agent_signs_for_a_key_with_a_passphrase(
        sshd: Sshd, home: Path, crowded: Path) -> None:
    locked = home / "locked"
    shutil.copy(sshd.key, locked)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", locked], check=True,
                   stdout=subprocess.DEVNULL)
    assert log_in(home, sshd.ssh(key=locked), "127.0.0.1") == "deploy"


def test_a_key_that_the_agent_wont_sign_with_is_passed_over(
        sshd: Sshd, eight: list[Path], home: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    configure(home, f"Host far\n {at(sshd)}")
    # Nobody can be asked to confirm it.
    monkeypatch.setenv("SSH_ASKPASS", "/bin/false")
    with agent(tmp_path / "agent", eight[0]) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        subprocess.run(["ssh-add", "-q", "-c", sshd.key], check=True)
        assert refusal(home).startswith("far: the agent doesn't sign with its key")
    with agent(tmp_path / "another") as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        subprocess.run(["ssh-add", "-q", "-c", eight[1]], check=True)
        (home / ".ssh/id_ed25519").write_bytes(sshd.key.read_bytes())
        assert log_in(home) == "deploy"


def test_the_keys_are_offered_in_sshs_order(
        eight: list[Path], home: Path, tmp_path: Path) -> None:
    one, two, three, four = eight[:4]
    with agent(tmp_path / "agent", one, two) as path:
        configure(home, f"Host *\n IdentityAgent {path}\n IdentityFile {three}\n"
                        f" IdentityFile {two}\n IdentityFile {home}/gone\n")
        offered = [offered_to("far", own, eight) for own in (None, four)]
    assert offered == [[two, one, three], [four, two, three]]


def offered_to(name: str, own: Path | None, files: list[Path]) -> list[Path]:
    """Return which of the files' keys are offered to a host, in order."""
    with closing(Agent(resolve(name).agent)) as asked:
        return [file for key in Keys(resolve(name), own, asked) for file in files
                if public_part(file) == key.asbytes()]


def test_a_certificate_is_offered_with_its_key(
        sshd: Sshd, home: Path, tmp_path: Path) -> None:
    authority, key = keypair(tmp_path / "authority"), keypair(tmp_path / "key")
    subprocess.run(["ssh-keygen", "-q", "-s", authority, "-I", "me", "-n", "deploy",
                    key.with_suffix(".pub")], check=True)
    (tmp_path / "line").write_text(
        f"cert-authority {authority.with_suffix('.pub').read_text()}")
    with running() as strict:
        strict.authorize(tmp_path / "line")
        configure(home, f"Host far\n {at(strict)} IdentityFile {key}\n")
        assert log_in(home) == "deploy"
        with agent(tmp_path / "agent", key) as path:
            key.rename(tmp_path / "away")
            configure(home, f"Host far\n {at(strict)} IdentityFile {key}.pub\n"
                            f" CertificateFile {key}-cert.pub\n IdentityAgent {path}\n")
            assert log_in(home) == "deploy"


def test_identity_agent_names_another_agent_or_none(
        sshd: Sshd, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with agent(tmp_path / "right", sshd.key) as right, agent(tmp_path / "empty") as empty:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(empty))
        monkeypatch.setenv("OTHER", str(right))
        for value in (right, "$OTHER", "${OTHER}", tmp_path / "%%/../%n/../right"):
            (tmp_path / "%").mkdir(exist_ok=True)
            (tmp_path / "far").mkdir(exist_ok=True)
            configure(home, f"Host far\n {at(sshd)} IdentityAgent {value}\n")
            assert log_in(home) == "deploy"
        monkeypatch.setenv("SSH_AUTH_SOCK", str(right))
        configure(home, f"Host far\n {at(sshd)} IdentityAgent none\n")
        assert "accepts none of the keys" in refusal(home)
        configure(home, f"Host far\n {at(sshd)} IdentityAgent SSH_AUTH_SOCK\n")
        assert log_in(home) == "deploy"


def test_included_files_are_read(sshd: Sshd, home: Path) -> None:
    (home / "more").write_text(f"Host far\n {at(sshd)} User root\n IdentityFile {sshd.key}\n")
    configure(home, f"Include {home}/more\nHost *\n User nobody\n")
    assert log_in(home) == "root"


def test_a_chain_of_jump_hosts_goes_in_its_order(
        sshd: Sshd, jumps: tuple[Sshd, Sshd], home: Path) -> None:
    one, two = jumps
    configure(home, f"Host one\n {at(one)}Host two\n {at(two)}Host far\n {at(sshd)}"
                    f" ProxyJump one,root@two\nHost *\n IdentityFile {sshd.key}\n")
    assert log_in(home) == "deploy"
    assert pinned(home) == [f"[127.0.0.1]:{each.port}" for each in (one, two, sshd)]


def test_proxy_jump_none_is_no_jump(sshd: Sshd, home: Path) -> None:
    configure(home, f"Host far\n {at(sshd)} ProxyJump none\n"
                    f"Host *\n ProxyJump nowhere\n IdentityFile {sshd.key}\n")
    assert log_in(home) == "deploy"


@pytest.mark.parametrize(("text", "line"), [
    ("Host *\n ProxyJump one\n",
     "ssh can't read its configuration for one (jumphost loop via one): see: ssh -G one"),
    ("Host far one\n ProxyJump two\nHost two\n ProxyJump one\n",
     "far: ProxyJump leads in a circle, from one to two: give two ProxyJump none in "
     "~/.ssh/config, before other lines")])
def test_a_circle_of_jump_hosts_is_refused(home: Path, text: str, line: str) -> None:
    configure(home, text)
    assert refusal(home) == line


def test_a_jump_host_is_entered_as_the_local_user(home: Path) -> None:
    configure(home, "Host far\n ProxyJump one\nHost near\n ProxyJump two\nHost two\n User me\n")
    local = subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout
    assert [host.user for host in route("far", Ssh())] == [local.strip(), "deploy"]
    assert [host.user for host in route("near", Ssh("root"))] == ["me", "root"]


def test_only_the_first_jump_host_is_reached_through_its_own(home: Path) -> None:
    configure(home, "Host far\n ProxyJump one,two\nHost one\n ProxyJump u@before:22000\n"
                    "Host two\n ProxyJump elsewhere\n")
    assert [(host.name, host.port) for host in route("far", Ssh())] \
        == [("before", 22000), ("one", 22), ("two", 22), ("far", 22)]


def test_a_jump_host_that_takes_no_key_is_named(
        sshd: Sshd, jumps: tuple[Sshd, Sshd], home: Path) -> None:
    configure(home, f"Host one\n {at(jumps[0])} User me\nHost far\n {at(sshd)} ProxyJump one\n")
    assert refusal(home) == (
        f"far: me@127.0.0.1:{jumps[0].port} accepts none of the keys from the inventory, the agent "
        f"and ~/.ssh: try: ssh -p {jumps[0].port} me@one")


@pytest.mark.parametrize(("user", "text"), [
    ("deploy", ""), ("root", "Host far\n User root\n"), ("me", "Host *\n User me\n"),
    ("deploy", "Host near\n User me\n")])
def test_the_default_user_is_taken_where_no_line_names_one(
        home: Path, user: str, text: str) -> None:
    configure(home, text)
    assert machine(home).user == user
    assert machine(home, Ssh("admin")).user == "admin"


def test_a_proxy_command_carries_the_connection(sshd: Sshd, home: Path) -> None:
    configure(home, f"Host far\n {at(sshd)} IdentityFile {sshd.key}\n ProxyCommand {CONNECT}\n")
    assert log_in(home) == "deploy"


def test_a_proxy_command_that_fails_is_quoted(home: Path) -> None:
    configure(home, "Host far\n ProxyCommand sh -c 'echo no way to %h >&2; exit 1'\n")
    assert refusal(home).startswith("far: no connection to deploy@far:22 (no way to far)")


def test_a_host_key_is_pinned_under_its_alias(sshd: Sshd, home: Path) -> None:
    configure(home, f"Host far\n {at(sshd)} IdentityFile {sshd.key}\n HostKeyAlias mine\n")
    assert not machine(home).is_known
    assert log_in(home) == "deploy"
    assert pinned(home) == ["mine"]
    assert machine(home).is_known


def test_family_timeout_address_and_tokens_are_read(home: Path) -> None:
    configure(home, "Host far\n HostName %h.example.org\n AddressFamily inet6\n"
                    " ConnectTimeout 7\n BindAddress ::1\n IdentityFile ~/keys/%n-%h-%r\n")
    found = resolve("far", "me")
    assert (found.hostname, found.family.name, found.connect_timeout, found.bind_address) \
        == ("far.example.org", "AF_INET6", 7, "::1")
    assert found.identity_files == (home / "keys/far-far.example.org-me",)


def test_ssh_itself_goes_the_same_way_with_the_same_pinned_keys(
        sshd: Sshd, jumps: tuple[Sshd, Sshd], home: Path,
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = jumps
    configure(home, f"Host one\n {at(one)}Host two\n {at(two)}Host far\n {at(sshd)}"
                    f" ProxyJump one,root@two\nHost *\n IdentityFile {sshd.key}\n")
    reached = machine(home)
    reached.connect()
    reached.close()
    # ssh finds its configuration by the user's entry in /etc/passwd, not by HOME.
    executable(tmp_path / "bin/ssh", f'exec {shutil.which("ssh")} -F "$HOME/.ssh/config" "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    done = subprocess.run([*reached.ssh_command(terminal=False), "echo in; id -u"],
                          capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("in\n64321\n", "")


def test_a_broken_configuration_is_told_in_sshs_own_words(home: Path) -> None:
    configure(home, "Host far\n Prot 22\n")
    assert refusal(home) == (
        f"ssh can't read its configuration for far ({home}/.ssh/config: line 2: Bad configuration "
        "option: prot): correct that line")


def test_a_token_that_isnt_read_is_named(home: Path) -> None:
    configure(home, "Host far\n IdentityFile ~/.ssh/%C\n")
    assert refusal(home) == ("far: ./fab doesn't read the token %C in ssh's configuration "
                             "(~/.ssh/%C): write what it stands for")


def test_a_laptop_without_ssh_is_told_what_to_install(
        home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home))
    assert refusal(home) == ("there is no ssh command here: install OpenSSH's client, on Debian "
                             "openssh-client")


def test_what_isnt_read_is_said_once(
        sshd: Sshd, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Listener(progress.Nobody):
        def line(self, text: str) -> None:
            said.append(text)
    said: list[str] = []
    ssh_config._tell.cache_clear()
    monkeypatch.setattr(progress, "_observer", Listener())
    configure(home, f"Host far\n {at(sshd)} IdentityFile {sshd.key}\n Ciphers aes256-ctr\n"
                    " PKCS11Provider /usr/lib/opensc.so\n")
    for _ in range(2):
        assert log_in(home) == "deploy"
    assert [re.sub(" +", " ", line).strip() for line in said] \
        == ["note ~/.ssh/config sets Ciphers, PKCS11Provider, which ./fab doesn't read"]


def test_a_host_that_isnt_there_is_named_with_the_name_that_ssh_knows(home: Path) -> None:
    port = free_port()
    configure(home, f"Host far\n HostName 127.0.0.1\n Port {port}\n")
    assert refusal(home) == (f"far: no connection to deploy@127.0.0.1:{port} (Connection refused):"
                             f" try: ssh -p {port} deploy@far")


def test_a_machine_that_its_jump_host_doesnt_reach_is_named(
        sshd: Sshd, jumps: tuple[Sshd, Sshd], home: Path) -> None:
    port = free_port()
    configure(home, f"Host one\n {at(jumps[0])} User root\nHost far\n HostName 127.0.0.1\n"
                    f" Port {port}\n ProxyJump one\nHost *\n IdentityFile {sshd.key}\n")
    assert refusal(home) == (f"far: no connection to deploy@127.0.0.1:{port} (Connect failed): "
                             f"try: ssh -p {port} deploy@far")
