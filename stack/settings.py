"""What an operator may choose: the environment first, then .env, then a default."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

from dotenv.parser import Binding, parse_stream

from stack.errors import Refused

ROOT = Path(__file__).resolve().parent.parent
DOTENV = ROOT / ".env"


@dataclass(frozen=True)
class Settings:
    """The choices for one deploy; .env.example documents each."""

    http_port: int = 80
    https_port: int = 443
    app_replicas: int = 2
    user_name: str = "an unnamed operator"
    user_url: str = ""
    deploy_timeout: int = 300

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, dotenv: Path = DOTENV) -> "Settings":
        """Read every setting; raises Refused with the setting's name and the rule."""
        chosen = os.environ if environ is None else environ
        given = {**_read(dotenv), **{name: value for name, value in chosen.items() if value}}
        settings = cls(
            http_port=_number(given, "HTTP_PORT", cls.http_port, 1, 65535),
            https_port=_number(given, "HTTPS_PORT", cls.https_port, 1, 65535),
            app_replicas=_number(given, "APP_REPLICAS", cls.app_replicas, 1, 100),
            user_name=_text(given, "USER_NAME", cls.user_name),
            user_url=_url(given, "USER_URL", cls.user_url),
            deploy_timeout=_number(given, "DEPLOY_TIMEOUT", cls.deploy_timeout, 10, 3600))
        if settings.http_port == settings.https_port:
            raise Refused(f"HTTP_PORT and HTTPS_PORT are both {settings.http_port}",
                          "choose two different ports")
        return settings


SETTINGS = tuple(field.name.upper() for field in fields(Settings))
# What sudo has to pass on.
NAMES = (*SETTINGS, "BUILD_NUMBER")
# docker-compose reads the same file.
KNOWN = {*SETTINGS, "BASE", "CA_BUNDLE"}


def _read(dotenv: Path) -> dict[str, str]:
    values = {}
    for line in _lines(dotenv):
        if line.error:
            raise Refused(f"{dotenv.name}, line {line.original.line}: it isn't NAME=value",
                          "see .env.example")
        if line.key is None:
            continue
        if line.value is None or line.key not in KNOWN and not line.key.startswith("COMPOSE_"):
            raise Refused(f"{dotenv.name}: {line.key!r} isn't a setting", "see .env.example")
        values[line.key] = line.value
    return values


def _lines(dotenv: Path) -> list[Binding]:
    try:
        with dotenv.open(encoding="utf-8") as file:
            return list(parse_stream(file))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{dotenv.name} can't be read", str(error)) from error


def _number(given: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = given.get(name) or str(default)
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
