"""Read the settings from environment variables and secret files."""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from flask import Flask, current_app
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

ROOT = Path(__file__).resolve().parent.parent
MINIMUM_KEY_LENGTH = 32
DEFAULT_LOCK_WAIT = 60
DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "sqlite": "sqlite",
}


class ConfigError(SystemExit):
    """End the process with one line that says which setting is wrong."""


@dataclass(frozen=True)
class Config:
    """What the operator decided; the same for the whole life of a process."""

    production: bool
    database: URL
    database_is_default: bool
    visitor_key: bytes = field(repr=False)
    user_name: str
    user_url: str | None
    version: str
    commit: str
    metrics_directory: str | None
    migration_lock_wait: int

    @classmethod
    def read(cls, environ: Mapping[str, str], instance_path: str) -> "Config":
        """Read every setting; development defaults live in the instance folder."""
        production = is_production(environ)
        configured = database_url(environ, required=production)
        return cls(
            production=production,
            database=configured or default_database(Path(instance_path)),
            database_is_default=configured is None,
            visitor_key=visitor_key(environ, Path(instance_path), production),
            user_name=setting(environ, "USER_NAME") or "an unnamed operator",
            user_url=user_url(environ),
            version=setting(environ, "TALLY_VERSION") or development_version(),
            commit=setting(environ, "TALLY_COMMIT") or "unknown",
            metrics_directory=setting(environ, "PROMETHEUS_MULTIPROC_DIR"),
            migration_lock_wait=seconds(environ, "MIGRATION_LOCK_WAIT", DEFAULT_LOCK_WAIT),
        )

    def attach(self, app: Flask) -> None:
        """Make this configuration the application's."""
        app.extensions["tally"] = self
        # OPTIONS is a method like any other that no page here answers: 405.
        app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False


def current_config() -> Config:
    """Return the configuration of the application that answers this request."""
    return cast(Config, current_app.extensions["tally"])


def setting(environ: Mapping[str, str], name: str) -> str | None:
    """Return NAME's value, or that of the file which NAME_FILE names; None if empty."""
    value, path = environ.get(name), environ.get(f"{name}_FILE")
    if value and path:
        raise ConfigError(f"{name} and {name}_FILE are both set: keep one of them")
    text = read_secret(name, path) if path else value
    return (text or "").rstrip("\r\n") or None


def read_secret(name: str, path: str) -> str:
    """Return the text of a secret file, or say which file can't be read and why."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{name}_FILE: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}_FILE: {path} is not UTF-8 text") from error


def is_production(environ: Mapping[str, str]) -> bool:
    """Tell whether TALLY_ENV asks for production, where nothing is guessed."""
    environment = setting(environ, "TALLY_ENV") or "development"
    if environment not in ("production", "development"):
        raise ConfigError("TALLY_ENV should be production or development")
    return environment == "production"


def database_url(environ: Mapping[str, str], required: bool) -> URL | None:
    """Return the configured database with its driver and password, or None."""
    text = setting(environ, "DATABASE_URL")
    password = setting(environ, "DATABASE_PASSWORD")
    if text is None:
        if required or password:
            raise ConfigError("DATABASE_URL is not set: such as postgresql://user@host/database")
        return None
    return with_password(parse_database_url(text), password)


def parse_database_url(text: str) -> URL:
    """Parse a URL and choose its driver; an error never repeats the URL's password."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise ConfigError("DATABASE_URL is not a database URL") from error
    backend = url.drivername.partition("+")[0]
    if backend not in DRIVERS:
        raise ConfigError(f"DATABASE_URL: {backend} is not one of {', '.join(DRIVERS)}")
    return url.set(drivername=DRIVERS[backend])


def with_password(url: URL, password: str | None) -> URL:
    """Add the password that came by itself, in which no character needs escaping."""
    if password is None:
        return url
    if url.password:
        raise ConfigError("DATABASE_URL has a password and DATABASE_PASSWORD is set: keep one")
    return url.set(password=password)


def default_database(instance: Path) -> URL:
    """Return the SQLite file that development uses when no database is configured."""
    instance.mkdir(parents=True, exist_ok=True)
    return URL.create("sqlite", database=str(instance / "tally.sqlite3"))


def visitor_key(environ: Mapping[str, str], instance: Path, production: bool) -> bytes:
    """Return the key of the visitors' HMAC; only development may make one up."""
    key = setting(environ, "VISITOR_KEY")
    if not production:
        return (key or development_key(instance)).encode()
    if key is None:
        raise ConfigError("VISITOR_KEY is not set: give a random text that never changes")
    if len(key) < MINIMUM_KEY_LENGTH:
        raise ConfigError(f"VISITOR_KEY is shorter than {MINIMUM_KEY_LENGTH} characters")
    return key.encode()


def development_key(instance: Path) -> str:
    """Return the random key kept in the instance folder, making it on first use."""
    path = instance / "visitor.key"
    instance.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(32))
    return path.read_text(encoding="utf-8")


def user_url(environ: Mapping[str, str]) -> str | None:
    """Return the operator's link; other schemes than the web's would be script or worse."""
    url = setting(environ, "USER_URL")
    if url is None:
        return None
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError("USER_URL is not a URL") from error
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError("USER_URL should begin with http:// or https:// and name a host")
    return url


def development_version() -> str:
    """Return version.txt's text, marked as a build that nobody released."""
    path = ROOT / "version.txt"
    try:
        return path.read_text(encoding="utf-8").strip() + "+dev"
    except OSError as error:
        raise ConfigError(f"TALLY_VERSION is not set and {path} cannot be read") from error


def seconds(environ: Mapping[str, str], name: str, default: int) -> int:
    """Return a setting that is a whole number of seconds, at least one."""
    text = setting(environ, name) or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{name} should be a whole number of seconds, at least 1")
    return int(text)
