"""What an operator may choose: the environment first, then .env, the inventory, a default."""

import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

from dotenv.parser import Binding, parse_stream

from stack.errors import Refused
from stack.inventory import MOST_REPLICAS, Inventory, Ports, Registry, Replicas, chosen
from stack.inventory.document import text_of

ROOT = Path(__file__).resolve().parents[2]
DOTENV = ROOT / ".env"
# How many tasks serve the application after the first deploy, if nobody chose.
DEFAULT_REPLICAS = 2


@dataclass(frozen=True)
class Settings:
    """The choices for one deploy; .env.example documents each.

    `app_replicas` is None if nobody chose: a deploy keeps what runs.
    """

    http_port: int = Ports.http
    https_port: int = Ports.https
    app_replicas: int | None = Replicas.app
    user_name: str = "an unnamed operator"
    user_url: str = ""
    deploy_timeout: int = 300

    @classmethod
    def load(cls, inventory: Inventory | None = None, environ: Mapping[str, str] | None = None,
             dotenv: Path = DOTENV) -> "Settings":
        """Read every setting; raises Refused with the setting's name and the rule."""
        given = _given(environ, dotenv)
        ports = inventory.ports if inventory else Ports()
        replicas = inventory.replicas if inventory else Replicas()
        settings = cls(
            http_port=_number(given, "HTTP_PORT", 1, 65535) or ports.http,
            https_port=_number(given, "HTTPS_PORT", 1, 65535) or ports.https,
            app_replicas=_number(given, "APP_REPLICAS", 1, MOST_REPLICAS) or replicas.app,
            user_name=_text(given, "USER_NAME", cls.user_name),
            user_url=_url(given, "USER_URL", cls.user_url),
            deploy_timeout=_number(given, "DEPLOY_TIMEOUT", 10, 3600) or cls.deploy_timeout)
        if settings.http_port == settings.https_port:
            raise Refused(f"HTTP_PORT and HTTPS_PORT are both {settings.http_port}",
                          "choose two different ports")
        return settings


SETTINGS = tuple(field.name.upper() for field in fields(Settings))
# What sudo has to pass on. A password is not among them: all users see command lines.
NAMES = (*SETTINGS, "BUILD_NUMBER", "INVENTORY")
# docker-compose reads the same file.
KNOWN = {*SETTINGS, "INVENTORY", "REGISTRY_PASSWORD", "BASE", "CA_BUNDLE"}


def inventory_path(environ: Mapping[str, str] | None = None, dotenv: Path = DOTENV,
                   root: Path = ROOT) -> Path | None:
    """Return the inventory that was chosen; None if it is this machine that is meant.

    Raises Refused for a named file that isn't there.
    """
    return chosen(_given(environ, dotenv), root)


def registry_password(registry: Registry, environ: Mapping[str, str] | None = None,
                      dotenv: Path = DOTENV) -> str | None:
    """Return REGISTRY_PASSWORD, else what the inventory's file holds; None without a user.

    Raises Refused, without showing it, if that can't be a password.
    """
    if registry.user is None or registry.password_file is None:
        return None
    if password := _given(environ, dotenv).get("REGISTRY_PASSWORD"):
        return _password(password, "REGISTRY_PASSWORD")
    path = registry.password_file
    return _password(_content(path).rstrip("\r\n"), f"registry.password_file, {path},")


def _content(path: Path) -> str:
    try:
        # What isn't text becomes unprintable, and that is refused.
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise Refused(f"registry.password_file, {path}, can't be read ({error.strerror})",
                      "write the password there, or set REGISTRY_PASSWORD") from error


def _password(text: str, source: str) -> str:
    if not text or not text.isprintable():
        raise Refused(f"{source} should hold a password", "one line of printable text")
    return text


def _given(environ: Mapping[str, str] | None, dotenv: Path) -> dict[str, str]:
    """Return what the environment and .env say; an empty variable says nothing."""
    variables = os.environ if environ is None else environ
    return {**_read(dotenv), **{name: value for name, value in variables.items() if value}}


def _read(dotenv: Path) -> dict[str, str]:
    values = {}
    for line in _lines(dotenv):
        if line.error:
            raise Refused(f"{dotenv.name}, line {line.original.line}: it isn't NAME=value",
                          "see .env.example")
        if line.key is None:
            continue
        known = line.key in KNOWN or line.key.startswith("COMPOSE_")
        if line.value is None and not known:
            # It may be a password.
            raise Refused(f"{dotenv.name}, line {line.original.line}: it isn't NAME=value",
                          "see .env.example")
        if line.value is None or not known:
            raise Refused(f"{dotenv.name}: {line.key!r} isn't a setting", "see .env.example")
        values[line.key] = line.value
    return values


def _lines(dotenv: Path) -> list[Binding]:
    try:
        return list(parse_stream(io.StringIO(text_of(dotenv))))
    except Refused as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return []
        raise


def _number(given: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    text = given.get(name)
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise Refused(f"{name}={text!r}", f"it should be a number from {least} to {most}")
    return int(text)


def _text(given: Mapping[str, str], name: str, default: str) -> str:
    text = given.get(name) or default
    if not text.isprintable():
        raise Refused(f"{name}={text!r}", "it should be one line of printable text")
    if "{{" in text:
        raise Refused(f"{name}={text!r}", "Swarm would fill in {{…}}: write it without")
    return text


def _url(given: Mapping[str, str], name: str, default: str) -> str:
    text = _text(given, name, default)
    if text and not _is_web_address(text):
        raise Refused(f"{name}={text!r}", "it should start with http:// or https://")
    return text


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:  # A bracket that isn't an IPv6 address.
        return False
    return parts.scheme in {"http", "https"} and bool(parts.netloc)
