"""Make and find the stack's secrets."""

import hashlib
import secrets
from collections.abc import Mapping

from stack.engine.engine import Engine
from stack.errors import Refused
from stack.swarm.names import STACK

LABEL = "tally.secret"
SECRETS = ("app-password", "owner-password", "visitor-key")


def secret_names(engine: Engine) -> dict[str, str]:
    """Return the Swarm name of each existing secret, the newest of each kind."""
    found = sorted(engine.secrets.list(LABEL), key=lambda secret: secret.version)
    return {secret.labels[LABEL]: secret.name for secret in found}


def make_secrets(engine: Engine) -> list[str]:
    """Make the secrets that don't exist yet; return which.

    A secret's name ends in a hash of its content, since Swarm can't change one
    in place. The values are random and 256 bits long, so the hash reveals nothing.
    """
    missing = [name for name in SECRETS if name not in secret_names(engine)]
    for name in missing:
        value = secrets.token_hex(32)
        content = hashlib.sha256(value.encode()).hexdigest()[:12]
        engine.secrets.create(f"{STACK}-{name}-{content}", value.encode(), {LABEL: name})
    return missing


def require_all(names: Mapping[str, str]) -> None:
    """Raise Refused naming the first secret that isn't among those that exist."""
    for name in SECRETS:
        if name not in names:
            raise Refused(f"the secret {name} is missing in the Swarm", "./fab bootstrap makes it")
