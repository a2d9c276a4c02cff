"""Parse a database's URL; no error message repeats its user name or its password."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import parse_qsl, unquote

from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError

from app.database_options import LIBPQ, PYMYSQL, SQLITE, Check


class UrlError(ValueError):
    """The reason why a URL is refused."""


@dataclass(frozen=True)
class Backend:
    """A kind of database: SQLAlchemy's name of it, its driver, and the driver's options."""

    name: str
    driver: str
    options: Mapping[str, Check]


POSTGRESQL = Backend("postgresql", "psycopg2", LIBPQ)
MYSQL = Backend("mysql", "pymysql", PYMYSQL)
SQLITE_FILE = Backend("sqlite", "pysqlite", SQLITE)
BACKENDS = {
    "postgres": POSTGRESQL,
    "postgresql": POSTGRESQL,
    "mysql": MYSQL,
    "mariadb": MYSQL,
    "sqlite": SQLITE_FILE,
}

SCHEME = re.compile("[a-z0-9_+]+")
# The only @ ends the user information: a second one might belong to the password.
SERVER = re.compile(
    r"(?:(?P<username>[^:/?@]*)(?::(?P<password>[^@]*))?@)?"
    r"(?:\[(?P<ipv6>[^]/?@]*)\]|(?P<host>[^]:/?@[]*))(?::(?P<port>[0-9]*))?"
    r"(?:/(?P<database>[^?@]*))?(?:\?(?P<query>[^@]*))?"
)
FILE = re.compile(r"/(?P<database>[^?]*)(?:\?(?P<query>.*))?")
HOST = re.compile(r"[\w.,:%-]*|/.*")
SECRETS = frozenset({"password", "sslpassword"})
OPTION = re.compile(r"[\w.-]+")


def parse(text: str) -> URL:
    """Return the URL with its driver; raises UrlError."""
    if text != text.strip() or text[0] in "\"'":
        raise UrlError("remove the quotes and spaces around the URL")
    scheme, separator, rest = text.partition("://")
    if not (separator and SCHEME.fullmatch(scheme) and text.isprintable()):
        refuse_form()
    backend = backend_of(scheme)
    try:
        if backend is SQLITE_FILE:
            return parse_file(rest)
        return parse_server(backend, rest)
    except UnicodeError:
        # From none: this error contains the text that could not be decoded.
        raise UrlError("a percent-encoded part is not UTF-8 text") from None


def refuse_form() -> NoReturn:
    """Raise UrlError for a text that cannot be split into a URL's parts."""
    raise UrlError(
        "expected a URL like postgresql://user@host/database: percent-encode the special"
        " characters of the user name and the password, or set DATABASE_PASSWORD"
    )


def backend_of(scheme: str) -> Backend:
    """Return the kind of database that a scheme names; raises UrlError."""
    name, plus, driver = scheme.partition("+")
    if name not in BACKENDS:
        raise UrlError(f"{name} is not one of {', '.join(BACKENDS)}")
    backend = BACKENDS[name]
    if plus and driver != backend.driver:
        raise UrlError(f"the driver {driver} is not installed: use {name}://")
    return backend


def parse_file(rest: str) -> URL:
    """Parse the part after sqlite://; raises UrlError."""
    parts = FILE.fullmatch(rest)
    database = decoded(parts["database"]) if parts else ""
    if parts is None or database in ("", ":memory:") or database.startswith("file:"):
        raise UrlError("SQLite needs the path of a file: sqlite:////directory/file")
    options = read_options(SQLITE_FILE, parts["query"])
    return URL.create("sqlite", database=database, query=options)


def parse_server(backend: Backend, rest: str) -> URL:
    """Parse the part after the scheme of a server's URL; raises UrlError."""
    parts = SERVER.fullmatch(rest)
    if parts is None:
        refuse_form()
    text = {name: decoded(part or "") for name, part in parts.groupdict().items()}
    host = checked_host(text["ipv6"] or text["host"])
    port = checked_port(text["port"])
    database = text["database"]
    if backend is MYSQL and not database:
        raise UrlError("the name of the database is missing: mysql://user@host/database")
    options = read_options(backend, parts["query"])
    # As options, SQLAlchemy would show them.
    username = options.pop("user", text["username"])
    password = options.pop("password", text["password"])
    return connectable(URL.create(
        f"{backend.name}+{backend.driver}",
        username=username or None, password=password or None,
        host=host or None, port=port, database=database or None, query=options,
    ))


def decoded(part: str) -> str:
    """Return a part without its percent-encoding; raises UrlError."""
    text = unquote(part, errors="strict")
    if "\0" in text:
        # A driver would take it for the end of everything.
        raise UrlError("%00 cannot be part of a URL")
    return text


def connectable(url: URL) -> URL:
    """Return a URL whose hosts and ports fit together; raises UrlError."""
    try:
        url.get_dialect()().create_connect_args(url)
    except ArgumentError:
        raise UrlError("expected one port, or a port for each host") from None
    return url


def checked_host(host: str) -> str:
    """Return a host, several with commas, or the directory of a socket; raises UrlError."""
    if not HOST.fullmatch(host):
        refuse_form()
    try:
        if not host.startswith("/"):
            b"".join(name.encode("idna") for name in host.split(","))
    except UnicodeError:
        raise UrlError("the host is not a valid name") from None
    return host


def checked_port(port: str) -> int | None:
    """Return a port's number, or None if it isn't given; raises UrlError."""
    if port and (len(port) > 5 or not 0 < int(port) < 65536):
        raise UrlError("the port is not a number from 1 to 65535")
    return int(port) if port else None


def read_options(backend: Backend, query: str | None) -> dict[str, str]:
    """Return the options, each of which the driver knows; raises UrlError."""
    pairs = parse_qsl(query or "", keep_blank_values=True, errors="strict")
    names = [name for name, _ in pairs]
    for name, value in pairs:
        if name not in backend.options and SECRETS.intersection(names):
            # It may be the end of a password with a "&".
            refuse_form()
        check_option(backend, name, value)
    for name in names:
        if names.count(name) > 1:
            raise UrlError(f"the option {name} is set more than once")
    return dict(pairs)


def check_option(backend: Backend, name: str, value: str) -> None:
    """Check an option's name and value; raises UrlError."""
    if not OPTION.fullmatch(name):
        refuse_form()
    if name not in backend.options:
        known = ", ".join(backend.options)
        raise UrlError(f"unknown option {name}: {backend.driver} knows {known}")
    if not value or not value.isprintable():
        raise UrlError(f"the option {name} has no value")
    try:
        backend.options[name](value)
    except ValueError as error:
        raise UrlError(f"the option {name}: {error}") from error
