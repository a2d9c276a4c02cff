"""A database's URL works as its operator means it, or is refused in one line."""

import random
import string
from pathlib import Path
from urllib.parse import quote

import pytest

from app.config import ConfigError, read_settings
from tests.support.services import VISITOR_KEY

pytestmark = pytest.mark.unit

ENCODE = "percent-encode the special characters of the user name and the password, or set " \
    "DATABASE_PASSWORD"


def read(url: str, **environ: str) -> dict[str, object]:
    """Read the settings; return the URL's parts by name."""
    settings = read_settings({
        "TALLY_ENV": "production", "TALLY_VERSION": "1.4.0+57", "VISITOR_KEY": VISITOR_KEY,
        "DATABASE_URL": url, **environ,
    }, "/nowhere")
    return dict(settings["SQLALCHEMY_DATABASE_URI"]._asdict())


def error(url: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as raised:
        read(url, **environ)
    text = str(raised.value)
    assert len(text.splitlines()) == 1
    return text


@pytest.mark.parametrize("url", [
    "postgresql://u:top@SecretRest@host/db",
    "postgresql://u/top:SecretRest@host/db",
    "postgresql://u:top@SecretRest%40host/db",
    "postgresql://u:top@SecretRest/db?x@host/db",
    "postgresql://u:SecretRest/db",
    "postgresql://u:top@host:SecretRest/db",
    "postgresql://u:top@host/db?SecretRest@host",
    "postgresql://u:top@Secret Rest/db",
    "postgresql://u:top@host/db\nSecretRest",
    "postgresql:u:top@SecretRest",
    "postgresql://u@host/db?password=top&SecretRest",
    "postgresql://u@host/db?password=top&SecretRest=",
    "SecretRest",
])
def test_a_url_with_unencoded_characters_is_refused_without_repeating_them(url: str) -> None:
    told = error(url)
    assert told.startswith("DATABASE_URL: expected a URL like postgresql://user@host/database: ")
    assert told.endswith(ENCODE)
    assert "Secret" not in told and "top" not in told


@pytest.mark.parametrize("form", ["'{}'", '"{}"', " {}", "{} ", "\t{}"])
def test_quotes_and_spaces_around_a_url_are_named(form: str) -> None:
    told = error(form.format("postgresql://u:secret@h/d"))
    assert told == "DATABASE_URL: remove the quotes and spaces around the URL"


@pytest.mark.parametrize(
    "form", ["postgresql://u:{}@h:1/d", "postgresql://h:1/d?user=u&password={}"]
)
def test_a_password_in_a_url_is_decoded_and_never_shown(form: str) -> None:
    secret = "p%40@ss/w:rd%(x)s?#&"
    url = form.format(quote(secret, safe=""))
    parts = read(url)
    assert (parts["username"], parts["password"], parts["query"]) == ("u", secret, {})
    assert secret not in repr(read_settings({"DATABASE_URL": url}, "/nowhere"))
    assert error(url, DATABASE_PASSWORD="other").startswith("DATABASE_URL contains a password; ")


@pytest.mark.parametrize("password", ["pa/ss", "pa:ss", "pa?ss", "pa#ss", "50%", "pa ss", "é€"])
def test_a_password_needs_no_encoding_where_it_is_clear_without(password: str) -> None:
    parts = read(f"postgresql://u:{password}@h/d")
    assert (parts["password"], parts["host"]) == (password, "h")


def test_bytes_that_are_no_text_are_refused() -> None:
    assert error("postgresql://u:p%e9x@h/d") == \
        "DATABASE_URL: a percent-encoded part is not UTF-8 text"
    assert error("postgresql://u:p\udce9x@h/d") == "DATABASE_URL is not UTF-8 text"


@pytest.mark.parametrize(("authority", "host"), [
    ("%2Frun%2Fpostgresql", "/run/postgresql"),
    ("[fe80::1%25eth0]:5432", "fe80::1%eth0"),
    ("a,b", "a,b"),
    ("", None),
])
def test_a_host_is_what_libpq_takes_it_for(authority: str, host: str | None) -> None:
    assert read(f"postgresql://u@{authority}/d")["host"] == host


@pytest.mark.parametrize(("url", "reason"), [
    ("postgresql://u:p@h:65536/d", "the port is not a number from 1 to 65535"),
    ("postgresql://u:p@a..b/d", "the host is not a valid name"),
    ("postgresql://u:p@/d?host=a,b&port=1,2,3", "expected one port, or a port for each host"),
    ("postgresql+psycopg://u:p@h/d", "the driver psycopg is not installed: use postgresql://"),
    ("postgresql+asyncpg://u:p@h/d", "the driver asyncpg is not installed: use postgresql://"),
    ("mysql+mysqldb://u:p@h/d", "the driver mysqldb is not installed: use mysql://"),
    ("oracle://u:p@h/d", "oracle is not one of postgres, postgresql, mysql, mariadb, sqlite"),
    ("mysql://u:p@h", "the name of the database is missing: mysql://user@host/database"),
    ("mysql://u:p@h/", "the name of the database is missing: mysql://user@host/database"),
])
def test_a_wrong_part_is_named(url: str, reason: str) -> None:
    assert error(url) == f"DATABASE_URL: {reason}"


@pytest.mark.parametrize("url", [
    "postgresql://u:%00SecretRest@host/db", "postgresql://u@host/%00db", "sqlite:////tmp/%00"])
def test_a_null_character_is_refused(url: str) -> None:
    assert error(url) == "DATABASE_URL: %00 cannot be part of a URL"


def test_a_number_of_any_length_is_read() -> None:
    digits = "9" * 5000
    assert error(f"postgresql://u:{digits}/db") == (
        "DATABASE_URL: the port is not a number from 1 to 65535")
    assert error("postgresql://u@host/db", MIGRATION_LOCK_WAIT=digits) == (
        "MIGRATION_LOCK_WAIT must be a whole number of seconds, at least 1")


def test_a_file_of_mysql_options_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "my.cnf"
    file.write_text("password=SecretRest\n")
    assert error(f"mysql://u@host/db?read_default_file={file}") == (
        f"DATABASE_URL: the option read_default_file: {file} is not a file of MySQL options")


@pytest.mark.parametrize(("url", "driver"), [
    ("postgresql+psycopg2://u@h/d", "postgresql+psycopg2"),
    ("mysql+pymysql://u@h/d", "mysql+pymysql"),
    ("sqlite+pysqlite:////d", "sqlite"),
])
def test_the_installed_driver_may_be_named(url: str, driver: str) -> None:
    assert read(url)["drivername"] == driver


@pytest.mark.parametrize(("url", "reason"), [
    ("postgresql://u@h/d?prepare_threshold=0", "unknown option prepare_threshold: psycopg2 knows "),
    ("postgresql://u@h/d?connect_timeout=soon", "the option connect_timeout: expected a whole "),
    ("postgresql://u@h/d?options=fast", "the option options: expected -c name=value "),
    ("postgresql://u@h/d?sslmode", "the option sslmode has no value"),
    ("postgresql://u@h/d?sslmode=require&sslmode=allow", "the option sslmode is set more than"),
    ("mysql://u@h/d?ssl-mode=REQUIRED", "unknown option ssl-mode: pymysql knows "),
    ("mysql://u@h/d?ssl=true", "unknown option ssl: pymysql knows "),
    ("mysql://u@h/d?ssl_ca=/nope", "the option ssl_ca: cannot read /nope: No such file"),
    ("mysql://u@h/d?ssl_ca=/dev/null", "the option ssl_ca: /dev/null contains no certificate"),
    ("mysql://u@h/d?ssl_key=/nope", "the option ssl_key: cannot read /nope: No such file"),
    ("mysql://u@h/d?ssl_capath=/nope", "the option ssl_capath: /nope is not a directory"),
    ("mysql://u@h/d?ssl_check_hostname=maybe", "the option ssl_check_hostname: expected true or"),
    ("mysql://u@h/d?charset=morse", "the option charset: expected a character set such as "),
    ("mysql://u@h/d?read_timeout=0", "the option read_timeout: expected a whole number of sec"),
    ("mysql://u@h/d?client_flag=x", "the option client_flag: expected a number"),
    ("sqlite:////d?mode=ro", "unknown option mode: pysqlite knows timeout"),
    ("sqlite:////d?timeout=-1", "the option timeout: expected a whole number of seconds, at "),
])
def test_a_wrong_option_is_named(url: str, reason: str) -> None:
    assert error(url).startswith(f"DATABASE_URL: {reason}")


@pytest.mark.parametrize("url", [
    "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true",
    "sqlite://file.db", "sqlite://u:secret@h/d",
])
def test_sqlite_needs_a_file(url: str) -> None:
    assert error(url) == \
        "DATABASE_URL: SQLite needs the path of a file: sqlite:////directory/file"


def test_sqlite_has_no_password() -> None:
    told = error("sqlite:////d", DATABASE_PASSWORD="secret")
    assert told == "DATABASE_PASSWORD is set, but SQLite has no passwords: unset it"


def test_a_sqlite_path_may_have_any_character() -> None:
    assert read("sqlite:////a b/c@d:e%3Ff")["database"] == "/a b/c@d:e?f"


# What passwords have that a URL's grammar also uses.
SPECIAL = "@:/?#%&=+[]'\" "
TEMPLATES = [
    "{scheme}://user:{password}@db.example/tally",
    "{scheme}://user:{password}@db.example:5432/tally?connect_timeout=3",
    "{scheme}://user:{password}@db.example/tally?ssl=true",
    "{scheme}://user:{password}@/tally",
    "{scheme}:/user:{password}@db.example/tally",
    "{scheme}//user:{password}@db.example/tally",
    "'{scheme}://user:{password}@db.example/tally'",
    "{scheme}://{password}:user@db.example@/tally",
    "{scheme}://user:{password}@db.example/tally?x=y@z",
]


def words(chance: random.Random) -> list[str]:
    """Return the parts of a password, which special characters will separate."""
    return ["".join(chance.choices(string.ascii_letters, k=8)) for _ in range(4)]


def test_no_part_of_a_malformed_or_well_formed_urls_password_is_told() -> None:
    chance = random.Random(20240503)
    for _ in range(3000):
        parts = words(chance)
        password = "".join(part + chance.choice(SPECIAL) for part in parts)
        if chance.random() < 0.3:
            password = quote(password, safe="")
        scheme = chance.choice(["postgresql", "postgresql+psycopg2", "mysql", "sqlite", "oracle"])
        url = chance.choice(TEMPLATES).format(scheme=scheme, password=password)
        try:
            parsed = read(url)
        except ConfigError as refused:
            told = str(refused)
        else:
            told = repr({name: part for name, part in parsed.items() if name != "password"})
        assert not [part for part in parts if part in told], url
