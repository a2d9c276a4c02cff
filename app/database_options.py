"""The options that a database's URL may contain, and the checks of their values."""

import configparser
import re
import ssl
from collections.abc import Callable
from pathlib import Path

from pymysql.charset import charset_by_name
from pymysql.optionfile import Parser
from sqlalchemy.util import asbool

# Raises ValueError, whose text says what is wrong with the value.
Check = Callable[[str], object]

# One parameter of libpq's "options"; a backslash escapes the character after it.
SERVER_PARAMETER = re.compile(r"(?<!\S)(?:-c\s*|--)([\w.-]+)=((?:\\.|[^\s\\])*)(?!\S)")


def unchecked(value: str) -> None:
    """Leave the check to the driver or to the server, which name the option."""


def whole_seconds(value: str) -> None:
    """Check a timeout; raises ValueError."""
    if not re.fullmatch("[1-9][0-9]{0,4}", value):
        raise ValueError("expected a whole number of seconds, at least 1")


def boolean(value: str) -> None:
    """Check a switch; raises ValueError."""
    try:
        asbool(value)
    except ValueError as error:
        raise ValueError("expected true or false") from error


def number(value: str) -> None:
    """Check a number that isn't negative; raises ValueError."""
    if not re.fullmatch("[0-9]{1,10}", value):
        raise ValueError("expected a number")


def charset(value: str) -> None:
    """Check a character set; raises ValueError."""
    if charset_by_name(value) is None:
        raise ValueError("expected a character set such as utf8mb4")


def readable(path: str) -> None:
    """Check that a file can be read; raises ValueError."""
    try:
        Path(path).open("rb").close()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


def option_file(path: str) -> None:
    """Check a file of MySQL options; raises ValueError without a word of the file's."""
    readable(path)
    try:
        Parser().read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        raise ValueError(f"{path} is not a file of MySQL options") from None


def directory(path: str) -> None:
    """Check that a directory exists; raises ValueError."""
    if not Path(path).is_dir():
        raise ValueError(f"{path} is not a directory")


def certificates(path: str) -> None:
    """Check a file of certificates; raises ValueError."""
    readable(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        raise ValueError(f"{path} contains no certificate") from error


def server_parameters(options: str) -> dict[str, str]:
    """Return the server parameters in libpq's "options", such as "-c work_mem=8MB".

    Raises ValueError if the text contains anything else.
    """
    if SERVER_PARAMETER.sub("", options).strip():
        raise ValueError("expected -c name=value for each server parameter")
    return {
        name.replace("-", "_").lower(): re.sub(r"\\(.)", r"\1", value)
        for name, value in SERVER_PARAMETER.findall(options)
    }


# The keywords of the libpq in psycopg2-binary, which can't be asked for a list.
KEYWORDS = (
    "service", "user", "password", "passfile", "channel_binding", "dbname", "host", "hostaddr",
    "port", "client_encoding", "application_name", "fallback_application_name", "keepalives",
    "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "sslmode",
    "sslnegotiation", "sslcompression", "sslcert", "sslkey", "sslcertmode", "sslpassword",
    "sslrootcert", "sslcrl", "sslcrldir", "sslsni", "requirepeer", "require_auth",
    "ssl_min_protocol_version", "ssl_max_protocol_version", "gssencmode", "krbsrvname", "gsslib",
    "gssdelegation", "replication", "target_session_attrs", "load_balance_hosts",
)
LIBPQ: dict[str, Check] = {
    **dict.fromkeys(KEYWORDS, unchecked),
    "connect_timeout": whole_seconds,
    "options": server_parameters,
}
PYMYSQL: dict[str, Check] = {
    "user": unchecked,
    "password": unchecked,
    "unix_socket": unchecked,
    "bind_address": unchecked,
    "program_name": unchecked,
    "charset": charset,
    "use_unicode": boolean,
    "collation": unchecked,
    "sql_mode": unchecked,
    "init_command": unchecked,
    "connect_timeout": whole_seconds,
    "read_timeout": whole_seconds,
    "write_timeout": whole_seconds,
    "client_flag": number,
    "local_infile": boolean,
    "read_default_file": option_file,
    "read_default_group": unchecked,
    "ssl_ca": certificates,
    "ssl_capath": directory,
    "ssl_cert": readable,
    "ssl_key": readable,
    "ssl_cipher": unchecked,
    "ssl_check_hostname": boolean,
}
SQLITE: dict[str, Check] = {"timeout": whole_seconds}
