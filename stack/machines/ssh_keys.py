"""Which keys a login offers, and in which order: as ssh(1) does."""

import base64
import binascii
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from paramiko import AgentKey, Message, PKey, SSHException
from paramiko.agent import SSH2_AGENT_IDENTITIES_ANSWER, AgentSSH
from paramiko.pkey import PublicBlob, UnknownKeyType

from stack.machines.ssh_config import SshConfig

# The agent's protocol: draft-ietf-sshm-ssh-agent.
REQUEST_IDENTITIES = bytes([11])
# A person may have to confirm a signature.
AGENT_TIMEOUT = 60.0
# An OpenSSH private key begins with its public part, which a passphrase doesn't cover.
ARMOUR, MAGIC = "-----BEGIN OPENSSH PRIVATE KEY-----", b"openssh-key-v1\0"


class HeldKey(AgentKey):
    """A key that the agent holds. If the agent doesn't sign, another key may still do."""

    refused = False

    def sign_ssh_data(self, data: Any, algorithm: str | None = None) -> Message:
        try:
            return super().sign_ssh_data(data, algorithm)
        except (SSHException, OSError):
            self.refused = True
            # An exception here would end the connection; this is a signature that no host takes.
            return Message()


class Agent(AgentSSH):
    """The agent behind a socket, which paramiko's own takes only from SSH_AUTH_SOCK."""

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(AGENT_TIMEOUT)
        self._path = path

    def close(self) -> None:
        self._socket.close()

    def keys(self) -> dict[bytes, HeldKey]:
        """Return the keys that it holds, by their public parts; none if it doesn't answer."""
        found: dict[bytes, HeldKey] = {}
        with suppress(OSError, SSHException):
            if self._path:
                self._socket.connect(str(self._path))
                kind, answer = self._send_message(REQUEST_IDENTITIES)
                count = answer.get_int() if kind == SSH2_AGENT_IDENTITIES_ANSWER else 0
                for _ in range(count):
                    blob, comment = answer.get_binary(), answer.get_text()
                    with suppress(SSHException, ValueError):
                        found[blob] = HeldKey(self, blob, comment)
        return found

    def _send_message(self, message: bytes | Message) -> tuple[int, Message]:
        """Ask the agent; AgentKey signs by this."""
        asked = bytes(message)
        self._socket.sendall(struct.pack(">I", len(asked)) + asked)
        length, = struct.unpack(">I", self._receive(4))
        answer = Message(self._receive(length))
        return answer.get_byte()[0], answer

    def _receive(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self._socket.recv(length - len(data))
            if not more:
                raise SSHException("the agent closed the connection")
            data += more
        return data


class Keys:
    """The keys for a login: `own` is the inventory's, and then no other of the agent's is."""

    def __init__(self, config: SshConfig, own: Path | None, agent: Agent) -> None:
        self._own = (own,) if own else ()
        self._files = tuple(dict.fromkeys([*self._own, *config.identity_files]))
        self._certificates = (*config.certificate_files,
                              *(Path(f"{file}-cert.pub") for file in self._files))
        self._only = config.identities_only or bool(own)
        self._held = agent.keys()
        # Files that only an agent can use, and why.
        self.unusable: dict[Path, str] = {}

    def __iter__(self) -> Iterator[PKey]:
        """Yield first the inventory's key and those of the files that the agent holds.

        Then come the agent's others, and the files that it doesn't hold.
        """
        publics = {file: public_part(file) for file in self._files}
        yield from self._certified(publics)
        held = [file for file, part in publics.items() if part in self._held]
        first = dict.fromkeys([*self._own, *held])
        for file in first:
            if key := self._held.get(publics[file]) or self._load(file):
                yield key
        if not self._only:
            yield from (key for part, key in self._held.items() if part not in publics.values())
        for file in self._files:
            if file not in first and (key := self._load(file)):
                yield key

    @property
    def refused(self) -> list[HeldKey]:
        """The keys with which the agent didn't sign, maybe since nobody confirmed it."""
        return [key for key in self._held.values() if key.refused]

    def _certified(self, publics: Mapping[Path, bytes]) -> Iterator[PKey]:
        for certificate in self._certificates:
            blob = _certificate(certificate)
            key = self._signer(blob, publics) if blob else None
            if key:
                # The agent's key serves without it, too.
                copy = HeldKey(key.agent, key.blob) if isinstance(key, HeldKey) else key
                copy.load_certificate(str(certificate))
                yield copy

    def _signer(self, certificate: bytes, publics: Mapping[Path, bytes]) -> PKey | None:
        """Return the key that a certificate is about."""
        for part, key in self._held.items():
            if _certifies(certificate, part):
                return key
        return next((self._load(file) for file, part in publics.items()
                     if part and _certifies(certificate, part)), None)

    def _load(self, file: Path) -> PKey | None:
        """Read a private key; None for what isn't one, and for one that only an agent can use."""
        try:
            key = PKey.from_path(file)
        except TypeError:
            # How the cryptography library asks for a passphrase.
            self.unusable[file] = "has a passphrase"
            return None
        except (UnknownKeyType, UnsupportedAlgorithm):
            self.unusable[file] = "is of a type that isn't read here"
            return None
        except (OSError, ValueError, SSHException):
            return None
        # from_path takes the certificate beside it; the key is offered without it as well.
        key.public_blob = None
        return key


def public_part(file: Path) -> bytes:
    """Return a key file's public part, from the file itself or from the .pub beside it, or b""."""
    for place in (file, Path(f"{file}.pub")):
        with suppress(OSError, ValueError, IndexError, binascii.Error):
            text = place.read_text()
            if not text.startswith("-----"):
                return base64.b64decode(text.split()[1])
            if text.startswith(ARMOUR):
                return _unlocked(base64.b64decode("".join(text.splitlines()[1:-1])))
    with suppress(OSError, ValueError, TypeError, SSHException, UnknownKeyType,
                  UnsupportedAlgorithm):
        return PKey.from_path(file).asbytes()
    return b""


def _unlocked(data: bytes) -> bytes:
    """Return the public part of OpenSSH's private key format (PROTOCOL.key)."""
    message = Message(data.removeprefix(MAGIC))
    for _ in ("cipher", "kdf", "its options"):
        message.get_string()
    message.get_int()
    return message.get_binary()


def _certificate(file: Path) -> bytes:
    with suppress(OSError, ValueError):
        return PublicBlob.from_file(str(file)).key_blob
    return b""


def _certifies(certificate: bytes, public: bytes) -> bool:
    """Whether a certificate is about a public key: it follows the type and a nonce.

    See PROTOCOL.certkeys.
    """
    whole, key = Message(certificate), Message(public)
    kind, name = whole.get_binary(), key.get_binary()
    whole.get_binary()
    return kind.startswith(name) and kind != name \
        and whole.get_remainder().startswith(key.get_remainder())
