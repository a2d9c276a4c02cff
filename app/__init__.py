"""Tally: count the unique visitors of one page."""

import os
from collections.abc import Mapping

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from app import database, errors, headers, health, logs, metrics, observe, schema, views
from app.config import Config


def create_app(
    environ: Mapping[str, str] | None = None, *, instance_path: str | None = None
) -> Flask:
    """Build the application from environment variables, by default the process's own.

    Raises ConfigError, which ends the process with one line, when a setting is
    missing or unusable. Opens no connection to a configured database, so that a
    server may fork its workers before or after this call.
    """
    logs.configure()
    app = Flask(__name__, instance_path=instance_path)
    config = Config.read(os.environ if environ is None else environ, app.instance_path)
    config.attach(app)
    trust_one_proxy(app)
    metrics.register(app, config.metrics_directory)
    observe.register(app)
    headers.register(app)
    errors.register(app)
    database.register(app, config)
    schema.register(app)
    app.register_blueprint(views.blueprint)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(metrics.blueprint)
    views.compile_templates(app)
    if config.database_is_default:
        schema.upgrade(app)
    return app


def trust_one_proxy(app: Flask) -> None:
    """Take the client's address and scheme from exactly one proxy.

    The rightmost X-Forwarded-For entry is the one our proxy wrote; all others are
    what the client claims. The Host header arrives unchanged, so X-Forwarded-Host,
    -Port and -Prefix are nobody's to set.
    """
    app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
        app.wsgi_app, x_for=1, x_proto=1, x_host=0, x_port=0, x_prefix=0
    )
