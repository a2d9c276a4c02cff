"""Ask OpenSSH's own client how its configuration reaches a host: ssh -G reads it as ssh does."""

import functools
import glob
import os
import pwd
import re
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stack import progress
from stack.errors import Refused
from stack.inventory import Ssh

USER = "deploy"  # The one that cloud-init makes.
SYSTEM = Path("/etc/ssh/ssh_config")
# Match exec may run a command that waits.
TIMEOUT = 10.0
FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
# What decides how ssh reaches a host or logs in, and has no counterpart here. Host keys are
# checked here by those that are pinned, whatever ssh's configuration says about known hosts.
UNREAD = ("BindInterface", "CASignatureAlgorithms", "Ciphers", "GSSAPIAuthentication",
          "HostbasedAuthentication", "HostKeyAlgorithms", "KexAlgorithms", "KnownHostsCommand",
          "MACs", "PermitLocalCommand", "PKCS11Provider", "PreferredAuthentications",
          "ProxyUseFdpass", "PubkeyAcceptedAlgorithms", "PubkeyAuthentication", "RemoteCommand",
          "RequiredRSASize", "RevokedHostKeys", "SecurityKeyProvider", "VerifyHostKeyDNS")
# What turns one of these off, which ./fab does as well. Public keys are all that it offers.
OFF = (["no"], ["none"], None)
# A word of ProxyJump: [user@]host[:port] or ssh://[user@]host[:port].
JUMP = re.compile(r"(?:ssh://)?(?:(.+)@)?(\[[^]]+\]|[^:]+)(?::(\d+))?")


@dataclass(frozen=True)
class SshConfig:
    """What ssh's configuration says about a host; `name` is what it was asked for."""

    name: str
    hostname: str
    user: str
    port: int
    identity_files: tuple[Path, ...] = ()
    certificate_files: tuple[Path, ...] = ()
    identities_only: bool = False
    agent: Path | None = None
    proxy_jump: tuple[str, ...] = ()
    proxy_command: str = ""
    host_key_alias: str = ""
    connect_timeout: float | None = None
    family: socket.AddressFamily = socket.AF_UNSPEC
    bind_address: str = ""
    unread: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        return f"{self.user}@{self.hostname}:{self.port}"

    @property
    def pinned_as(self) -> tuple[str, int]:
        """The host and port under which known_hosts has its key."""
        return (self.host_key_alias, 22) if self.host_key_alias else (self.hostname, self.port)

    @property
    def target(self) -> str:
        """What ssh calls the login there."""
        return f"-p {self.port} {self.user}@{self.name}"


def route(name: str, ssh: Ssh) -> tuple[SshConfig, ...]:
    """Return the hosts on the way to a machine, in order, and at the end the machine itself.

    The inventory comes first, then ssh's configuration, then our default user. A jump host's
    default user is the local one, as with ssh.
    """
    machine = resolve(name, ssh.user, ssh.port, default=USER)
    return (*_jumps(machine, (name,)), machine)


def tell_unread(hosts: Sequence[SshConfig]) -> None:
    """Say once what somebody has set for these hosts and ./fab doesn't read."""
    unread = sorted({keyword for host in hosts for keyword in host.unread})
    if unread:
        _tell(f"~/.ssh/config sets {', '.join(unread)}, which ./fab doesn't read")


@functools.cache
def _tell(text: str) -> None:
    # Machines often share their settings.
    progress.note(text)


def _jumps(config: SshConfig, to: tuple[str, ...]) -> tuple[SshConfig, ...]:
    """Return the jump hosts before a host; `to` are those that lead to it already."""
    if not config.proxy_jump:
        return ()
    first, *others = [_jump(word, config.name) for word in config.proxy_jump]
    if first.name in to:
        raise Refused(f"{to[0]}: ProxyJump leads in a circle, from {config.name} to {first.name}",
                      f"give {first.name} ProxyJump none in ~/.ssh/config, before other lines")
    # ssh reaches the later ones through those before them, whatever they say themselves.
    others = [replace(each, proxy_jump=(), proxy_command="") for each in others]
    return (*_jumps(first, (*to, first.name)), first, *others)


def _jump(word: str, name: str) -> SshConfig:
    found = JUMP.fullmatch(word)
    if not found:
        raise Refused(f"{name}: ProxyJump {word} can't be read", f"see: ssh -G {name}")
    user, host, port = found.groups()
    return resolve(host.strip("[]"), user, int(port) if port else None)


def pinning_options(hosts: Sequence[SshConfig], known_hosts: Path) -> list[str]:
    """Return the options of ssh with which each host of a route has its pinned key.

    ProxyJump starts an ssh of its own for a jump host, which wouldn't know of them.
    """
    path = str(known_hosts).replace("%", "%%")
    pins = [f'-oUserKnownHostsFile="{path}"', "-oStrictHostKeyChecking=yes"]
    found = pins
    for jump in hosts[:-1]:
        # Tokens in the options are for the ssh that gets them, not for the one after it.
        quoted = [option.replace("%", "%%") for option in found]
        command = ["ssh", *quoted, "-l", jump.user, "-p", str(jump.port), "-W", "[%h]:%p"]
        found = [*pins, f"-oProxyCommand={shlex.join([*command, jump.name])}"]
    return found


def resolve(name: str, user: str | None = None, port: int | None = None, *,
            default: str = "") -> SshConfig:
    """Return what ssh's configuration says about a host, for this user and port if they are given.

    `default` is the user if nothing names one; without it, that is the local user, as with ssh.
    Raises Refused if there is no ssh, or if its configuration is broken.
    """
    options = [str(word) for option, value in (("-l", user), ("-p", port)) if value
               for word in (option, value)]
    config = _include(Path.home() / ".ssh/config") + _include(SYSTEM)
    if default:
        # Whatever comes first holds, and -o User would come before all files.
        config += f"Host *\n  User {default}\n"
    return _read(name, _ask(name, options, config))


def _include(path: Path) -> str:
    # A file that doesn't exist is none.
    return f'Include "{glob.escape(str(path))}"\n'


def _ask(name: str, options: Sequence[str], config: str) -> dict[str, list[str]]:
    """Return the values of each keyword, in lower case, that ssh -G prints."""
    with tempfile.NamedTemporaryFile("w", prefix="tally-ssh-", suffix=".config") as file:
        file.write(config)
        file.flush()
        try:
            done = subprocess.run(
                ["ssh", "-G", "-T", "-F", file.name, *options, "--", name],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=TIMEOUT, env={**os.environ, "LC_ALL": "C"})
        except FileNotFoundError as error:
            raise Refused("there is no ssh command here",
                          "install OpenSSH's client, on Debian openssh-client") from error
        except subprocess.TimeoutExpired as error:
            raise Refused(f"{name}: ssh doesn't read its configuration within {TIMEOUT:.0f} s",
                          "does a Match exec in ~/.ssh/config wait for something?") from error
    if done.returncode != 0:
        cause = next(iter(done.stderr.splitlines()), f"ssh -G ended with {done.returncode}")
        raise Refused(f"ssh can't read its configuration for {name} ({cause})",
                      "correct that line" if " line " in cause else f"see: ssh -G {name}")
    said: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        said.setdefault(keyword.lower(), []).append(value)
    return said


@functools.cache
def _systems() -> dict[str, list[str]]:
    """Return what holds without anything of the operator's own."""
    return _ask("localhost", (), _include(SYSTEM))


def _read(name: str, said: Mapping[str, list[str]]) -> SshConfig:
    def one(keyword: str) -> str:
        value = said.get(keyword, [""])[0]
        return "" if value == "none" else value

    tokens = _tokens(name, said)
    files = {keyword: tuple(_path(value, tokens) for value in said.get(keyword, ())
                            if value != "none")
             for keyword in ("identityfile", "certificatefile")}
    timeout = one("connecttimeout")
    return SshConfig(
        name, said["hostname"][0], said["user"][0], int(said["port"][0]),
        files["identityfile"], files["certificatefile"], one("identitiesonly") == "yes",
        _agent(said.get("identityagent", ["SSH_AUTH_SOCK"])[0]),
        tuple(filter(None, _expand(one("proxyjump"), tokens).split(","))),
        _expand(one("proxycommand"), tokens), one("hostkeyalias"),
        float(timeout) if timeout else None,
        FAMILIES.get(one("addressfamily"), socket.AF_UNSPEC), one("bindaddress"),
        tuple(keyword for keyword in UNREAD
              if said.get(keyword.lower()) not in (*OFF, _systems().get(keyword.lower()))))


def _tokens(name: str, said: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the values of ssh_config's tokens, which ssh -G prints as they were written."""
    here = socket.gethostname()
    host = said["hostname"][0]
    return {"%": "%", "d": str(Path.home()), "h": host, "i": str(os.getuid()),
            "k": said.get("hostkeyalias", [name])[0], "L": here.partition(".")[0], "l": here,
            "n": name, "p": said["port"][0], "r": said["user"][0],
            "u": pwd.getpwuid(os.getuid()).pw_name}


def _expand(text: str, tokens: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] not in tokens:
            raise Refused(f"{tokens['n']}: ./fab doesn't read the token {found[0]} in ssh's "
                          f"configuration ({text})", "write what it stands for")
        return tokens[found[1]]
    return re.sub("%(.?)", value, text)


def _path(text: str, tokens: Mapping[str, str]) -> Path:
    def variable(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise Refused(f"{tokens['n']}: ssh's configuration needs the variable {found[1]} "
                          f"({text})", f"set {found[1]}")
        return os.environ[found[1]]
    return Path(_expand(re.sub(r"\$\{(\w+)\}", variable, text), tokens)).expanduser()


def _agent(value: str) -> Path | None:
    """Return the socket that IdentityAgent names; ssh -G has replaced its tokens."""
    if value == "none":
        return None
    if value == "SSH_AUTH_SOCK" or value.startswith("$"):
        value = os.environ.get(value.removeprefix("$"), "")
    return Path(value).expanduser() if value else None
