"""Open connections whose waits are limited, to a server or through a pooler."""

from collections.abc import Callable, Mapping
from typing import Any

from psycopg2.extensions import connection as Session
from sqlalchemy import URL, Connection, Dialect, Engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from app.database_options import server_parameters
from app.logs import cause

# A driver's arguments and its connection, which have no common type.
Arguments = dict[str, Any]
Open = Callable[[Dialect, ConnectionPoolEntry, list[Any], Arguments], Any]

# PgBouncer's answer to libpq's "options", which it cannot pass on.
REFUSED_OPTIONS = "unsupported startup parameter"


def connect_arguments(url: URL, defaults: Mapping[str, Any]) -> Arguments:
    """Return the driver's arguments, except those that the URL sets."""
    return {name: value for name, value in defaults.items() if name not in url.query}


def prepare(engine: Engine, parameters: Mapping[str, str]) -> None:
    """Limit the connections of a PostgreSQL engine by parameters of the server.

    The URL's own "options" win. Any engine reports a failed connection as its driver's error.
    """
    match engine.dialect.name:
        case "postgresql":
            own = server_parameters(str(engine.url.query.get("options", "")))
            limits = {**parameters, **own}
            listen(engine, open_postgresql(limits))
            event.listen(engine, "begin", limit_transaction)
        case "mysql":
            listen(engine, open_mysql)
        case _:
            listen(engine, open_sqlite)


def listen(engine: Engine, open_connection: Open) -> None:
    """Have the engine open its connections with a function."""

    @event.listens_for(engine, "do_connect")
    def connect(
        dialect: Dialect, entry: ConnectionPoolEntry, positional: list[Any], arguments: Arguments
    ) -> Any:
        driver = dialect.loaded_dbapi
        try:
            return open_connection(dialect, entry, positional, arguments)
        except driver.Error:
            raise
        except Exception as error:
            # Such as a file of certificates that is gone: no bug, but no error of the driver's.
            raise driver.OperationalError(cause(error)) from error


def open_postgresql(parameters: Mapping[str, str]) -> Open:
    """Return a function that opens connections and recognizes a pooler.

    A pooler in transaction mode may run each transaction in another session of the server. So
    nothing may be left in one: neither parameters nor prepared statements.
    """

    def connect(
        dialect: Dialect, entry: ConnectionPoolEntry, positional: list[Any], arguments: Arguments
    ) -> Any:
        direct = arguments | {"options": startup_options(parameters)}
        pooled = {name: value for name, value in arguments.items() if name != "options"}
        try:
            connection: Any = dialect.connect(*positional, **direct)
        except dialect.loaded_dbapi.OperationalError as error:
            if REFUSED_OPTIONS not in str(error):
                raise
            connection = dialect.connect(*positional, **pooled)
        entry.info["pooler"] = is_pooler(connection)
        entry.info["limits"] = transaction_limits(parameters)
        return connection

    return connect


def startup_options(parameters: Mapping[str, str]) -> str:
    """Return server parameters as libpq's "options"."""
    escaped = {
        name: value.replace("\\", "\\\\").replace(" ", "\\ ") for name, value in parameters.items()
    }
    return " ".join(f"-c {name}={value}" for name, value in escaped.items())


def is_pooler(connection: Session) -> bool:
    """Return whether the answering session isn't the one that was opened."""
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        session = cursor.fetchone()
    connection.autocommit = False
    return session != (connection.info.backend_pid,)


def transaction_limits(parameters: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """Return the statement that sets the server parameters of one transaction, and its values."""
    statement = "SELECT " + ", ".join(["set_config(%s, %s, true)"] * len(parameters))
    return statement, tuple(text for parameter in parameters.items() for text in parameter)


def limit_transaction(connection: Connection) -> None:
    """Set the server parameters of a pooler's transaction."""
    if connection.info.get("pooler"):
        connection.exec_driver_sql(*connection.info["limits"])


def open_mysql(
    dialect: Dialect, entry: ConnectionPoolEntry, positional: list[Any], arguments: Arguments
) -> Any:
    """Open a connection; its password may have characters that Latin-1 lacks."""
    driver = dialect.loaded_dbapi
    password = str(arguments.get("password", "")).encode()
    try:
        return dialect.connect(*positional, **arguments | {"password": password})
    except OSError as error:
        # PyMySQL's own error covers the network, so this one is about a file.
        reason = f"{error}: check the files of ssl_ca, ssl_cert and ssl_key"
        raise driver.OperationalError(reason) from error


def open_sqlite(
    dialect: Dialect, entry: ConnectionPoolEntry, positional: list[Any], arguments: Arguments
) -> Any:
    """Open a file; an error contains its path."""
    driver = dialect.loaded_dbapi
    try:
        return dialect.connect(*positional, **arguments)
    except driver.OperationalError as error:
        raise driver.OperationalError(f"{error}: {positional[0]}") from error
