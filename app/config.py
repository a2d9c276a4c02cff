"""Read the settings from environment variables and secret files."""

import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypedDict
from urllib.parse import urlsplit

from sqlalchemy import URL

from app.database_url import UrlError, parse

ROOT = Path(__file__).resolve().parent.parent
MINIMUM_KEY_LENGTH = 32
DEFAULT_LOCK_WAIT = 60


class ConfigError(SystemExit):
    """End the process with a one-line message about an invalid setting."""


class Key(bytes):
    """A secret key; its repr does not show it."""

    def __repr__(self) -> str:
        """Return a placeholder."""
        return "<Key>"


class Settings(TypedDict):
    """The application's own entries of app.config."""

    PRODUCTION: bool
    SQLALCHEMY_DATABASE_URI: URL
    DATABASE_IS_DEFAULT: bool
    VISITOR_KEY: Key
    USER_NAME: str
    USER_URL: str | None
    VERSION: str
    COMMIT: str
    METRICS_DIRECTORY: str | None
    MIGRATION_LOCK_WAIT: int


def read_settings(environ: Mapping[str, str], instance_path: str) -> Settings:
    """Read every setting; development defaults live in the instance folder."""
    production = is_production(environ)
    configured = database_url(environ, required=production)
    return Settings(
        PRODUCTION=production,
        SQLALCHEMY_DATABASE_URI=configured or default_database(Path(instance_path)),
        DATABASE_IS_DEFAULT=configured is None,
        VISITOR_KEY=visitor_key(environ, Path(instance_path), production),
        USER_NAME=setting(environ, "USER_NAME") or "an unnamed operator",
        USER_URL=user_url(environ),
        VERSION=setting(environ, "TALLY_VERSION") or development_version(),
        COMMIT=setting(environ, "TALLY_COMMIT") or "unknown",
        METRICS_DIRECTORY=setting(environ, "PROMETHEUS_MULTIPROC_DIR"),
        MIGRATION_LOCK_WAIT=seconds(environ, "MIGRATION_LOCK_WAIT", DEFAULT_LOCK_WAIT),
    )


def setting(environ: Mapping[str, str], name: str) -> str | None:
    """Return the value of NAME, or the content of the file NAME_FILE; None if empty."""
    value, path = environ.get(name), environ.get(f"{name}_FILE")
    if value and path:
        raise ConfigError(f"{name} and {name}_FILE are both set; keep only one of them")
    text = (read_secret(name, path) if path else value) or ""
    try:
        # Python keeps an environment variable's invalid bytes as surrogates.
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name} is not UTF-8 text") from None
    return text.rstrip("\r\n") or None


def read_secret(name: str, path: str) -> str:
    """Return the text of a secret file; raise ConfigError if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{name}_FILE: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}_FILE: {path} is not UTF-8 text") from error


def is_production(environ: Mapping[str, str]) -> bool:
    """Return whether TALLY_ENV is production, where required settings have no default."""
    environment = setting(environ, "TALLY_ENV") or "development"
    if environment not in ("production", "development"):
        raise ConfigError("TALLY_ENV must be production or development")
    return environment == "production"


def database_url(environ: Mapping[str, str], required: bool) -> URL | None:
    """Return the configured database's URL with driver and password, or None."""
    text = setting(environ, "DATABASE_URL")
    password = setting(environ, "DATABASE_PASSWORD")
    if text is None:
        if required or password:
            raise ConfigError("DATABASE_URL is not set: expected postgresql://user@host/database")
        return None
    try:
        return with_password(parse(text), password)
    except UrlError as error:
        raise ConfigError(f"DATABASE_URL: {error}") from error


def with_password(url: URL, password: str | None) -> URL:
    """Add the separately configured password, which needs no escaping."""
    if password is None:
        return url
    if url.get_backend_name() == "sqlite":
        raise ConfigError("DATABASE_PASSWORD is set, but SQLite has no passwords: unset it")
    if url.password:
        raise ConfigError("DATABASE_URL contains a password; do not also set DATABASE_PASSWORD")
    return url.set(password=password)


def default_database(instance: Path) -> URL:
    """Return the URL of the SQLite file for development without a configured database."""
    make_folder(instance)
    return URL.create("sqlite", database=str(instance / "tally.sqlite3"))


def make_folder(path: Path) -> None:
    """Make the instance folder unless it is there; raises ConfigError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {error.strerror}") from error


def visitor_key(environ: Mapping[str, str], instance: Path, production: bool) -> Key:
    """Return the key of the visitors' HMAC; only development generates one."""
    key = setting(environ, "VISITOR_KEY")
    if not production:
        return Key((key or development_key(instance)).encode())
    if key is None:
        raise ConfigError("VISITOR_KEY is not set: use a random text and never change it")
    if len(key) < MINIMUM_KEY_LENGTH:
        raise ConfigError(f"VISITOR_KEY is shorter than {MINIMUM_KEY_LENGTH} characters")
    return Key(key.encode())


def development_key(instance: Path) -> str:
    """Return the random key in the instance folder; create it on first use."""
    path = instance / "visitor.key"
    make_folder(instance)
    try:
        if not path.exists():
            # Complete before it has its name, which only one of several processes can give it.
            with tempfile.NamedTemporaryFile("w", dir=instance, encoding="utf-8") as file:
                file.write(secrets.token_hex(32))
                file.flush()
                with suppress(FileExistsError):
                    os.link(file.name, path)
        key = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read or made: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text: delete it") from None
    if len(key) < MINIMUM_KEY_LENGTH:
        raise ConfigError(f"{path} contains no key: delete it")
    return key


def user_url(environ: Mapping[str, str]) -> str | None:
    """Return the operator's link; only HTTP(S), as other schemes could run scripts."""
    url = setting(environ, "USER_URL")
    if url is None:
        return None
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError("USER_URL is not a URL") from error
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError("USER_URL must start with http:// or https:// and contain a host")
    return url


def development_version() -> str:
    """Return the version in version.txt, marked as a development build."""
    path = ROOT / "version.txt"
    try:
        return path.read_text(encoding="utf-8").strip() + "+dev"
    except OSError as error:
        raise ConfigError(f"TALLY_VERSION is not set and {path} cannot be read") from error


def seconds(environ: Mapping[str, str], name: str, default: int) -> int:
    """Return a setting in whole seconds, at least 1."""
    text = setting(environ, name) or str(default)
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise ConfigError(f"{name} must be a whole number of seconds, at least 1")
    return int(text)
