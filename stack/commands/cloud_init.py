"""Render the user-data that makes a plain VM ready to be bootstrapped."""

import json
import os
import re
import sys
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from stack.errors import Refused
from stack.inventory.settings import ROOT

# cloud-init recognizes its user-data by this first line.
HEADER = "#cloud-config\n"
TEMPLATE = ROOT / "cloud-init" / "user-data.yml"
# The order in which ssh itself would rather have them.
DEFAULT_KEYS = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")
# Certificates and DSA are missing: the first expire, the second no sshd of today accepts.
KEY_TYPES = frozenset({
    "ssh-ed25519", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
    "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"})
# What Debian's and Ubuntu's adduser accept (NAME_REGEX in adduser.conf(5)).
USER_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def cloud_init(key: str = "") -> None:
    """Print the user-data for the operator with this public key file, or with their own."""
    path = Path(os.path.expanduser(key)) if key else _own_key(Path.home() / ".ssh")
    sys.stdout.write(render(_read(path)))


def render(public_key: str, user: str = "deploy") -> str:
    """Return the user-data for every node; raises Refused for what is no public key or user."""
    if not USER_NAME.fullmatch(user) or user == "root":
        raise Refused(f"user {user!r}", "it should be lower-case letters, digits, - and _, "
                      "and not root, who can't log in")
    line = _checked(public_key, "the public key")
    # In quotes, a JSON string is a YAML string, whatever is in a key's comment.
    return HEADER + TEMPLATE.read_text(encoding="utf-8") \
        .replace('"@USER@"', json.dumps(user)).replace('"@PUBLIC_KEY@"', json.dumps(line))


def _own_key(directory: Path) -> Path:
    """Return the first of the usual public keys that there is; raises Refused for none."""
    for name in DEFAULT_KEYS:
        if (directory / name).exists():
            return directory / name
    raise Refused(f"there is no {', '.join(DEFAULT_KEYS)} in {directory}",
                  "make a key with: ssh-keygen -t ed25519, or name one: "
                  "./fab cloud-init --key FILE")


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Refused(f"{path} can't be read", error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise Refused(f"{path} isn't text", "name the public key, which ends in .pub") from error
    return _checked(text, str(path))


def _checked(text: str, source: str) -> str:
    """Return the one line that a public key is; never repeats what it is, if it is something else.

    A private key pasted into a cloud's form by mistake would have to be replaced everywhere.
    """
    if "PRIVATE KEY" in text or text.startswith("PuTTY-User-Key-File"):
        raise Refused(f"{source} is a private key", "name the public one, which ends in .pub")
    lines = text.strip().splitlines()
    if len(lines) != 1:
        raise Refused(f"{source} has {len(lines)} lines", "it should be one public key")
    if lines[0].split()[0] not in KEY_TYPES or not _loads(lines[0]):
        raise Refused(f"{source} isn't a public key that sshd accepts",
                      "make one with: ssh-keygen -t ed25519")
    return lines[0]


def _loads(line: str) -> bool:
    """Return whether the key itself is whole, and of the type that the line says."""
    try:
        load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True
