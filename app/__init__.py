"""Tally: count the unique visitors of one page."""

import os
from collections.abc import Mapping

from flask import Flask
from sqlalchemy.exc import DBAPIError
from werkzeug.middleware.proxy_fix import ProxyFix

from app import (
    database, errors, headers, health, logs, metrics, observe, schema, upkeep, views, workers)
from app.config import ConfigError, read_settings


def create_app(
    environ: Mapping[str, str] | None = None, *, instance_path: str | None = None
) -> Flask:
    """Build the application from environment variables, by default those of the process.

    A missing or invalid setting raises ConfigError, which ends the process with a
    one-line message. No connection to a configured database is opened here, so a server
    may fork its workers before or after this call. A worker of uWSGI connects when it starts.
    """
    app = Flask(__name__, instance_path=instance_path)
    settings = read_settings(os.environ if environ is None else environ, app.instance_path)
    logs.configure(settings["PRODUCTION"])
    # No page supports OPTIONS: answer 405 instead of Flask's automatic response.
    app.config.from_mapping(settings, PROVIDE_AUTOMATIC_OPTIONS=False)
    trust_one_proxy(app)
    metrics.register(app)
    observe.register(app)
    headers.register(app)
    errors.register(app)
    database.register(app)
    schema.register(app)
    upkeep.register(app)
    app.register_blueprint(views.blueprint)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(metrics.blueprint)
    views.compile_templates(app)
    workers.register(app)
    if app.config["DATABASE_IS_DEFAULT"]:
        try:
            schema.upgrade(app)
        except DBAPIError as error:
            file = app.config["SQLALCHEMY_DATABASE_URI"].database
            raise ConfigError(f"{file} cannot be used: {logs.cause(error)}") from error
    return app


def trust_one_proxy(app: Flask) -> None:
    """Take the client's address and scheme from exactly one proxy.

    Our proxy writes the rightmost X-Forwarded-For entry; the client may have forged
    all others. The proxy passes the Host header unchanged, so X-Forwarded-Host,
    -Port and -Prefix are ignored.
    """
    app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
        app.wsgi_app, x_for=1, x_proto=1, x_host=0, x_port=0, x_prefix=0
    )
