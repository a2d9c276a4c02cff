"""Set the security and caching headers."""

from collections.abc import Iterable
from typing import Any

from flask import Flask, Response, current_app, request

SECURITY = {
    # Allow styles and images from this site, and nothing else.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SECURITY_ITEMS = list(SECURITY.items())
YEAR = "public, max-age=31536000, immutable"


def register(app: Flask) -> None:
    """Set the headers on every response, including errors and static files."""
    app.after_request(limit_caching)
    app.wsgi_app = Secured(app.wsgi_app)  # type: ignore[method-assign]


class Secured:
    """Add the security headers.

    Below Flask: its headers check and compare each one, which takes ten times as long.
    """

    def __init__(self, application: Any) -> None:
        """Take the application, of any WSGI type."""
        self.application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer as the application does, with more headers."""

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, headers + SECURITY_ITEMS, exc_info)

        answer: Iterable[bytes] = self.application(environ, start)
        return answer


def limit_caching(response: Response) -> Response:
    """Allow caching of static files, and for a year only for this build's files.

    Everything else isn't kept, unless it says so itself.

    During a rolling update, an old process may receive a request for a new build's
    file. Caches must not keep the old file under the new URL.
    """
    config = current_app.config
    if response.status_code >= 400:
        response.headers["Cache-Control"] = "no-store"
    elif request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-store")
    elif config["PRODUCTION"] and request.args.get("v") == config["VERSION"]:
        response.headers["Cache-Control"] = YEAR
    else:
        response.headers["Cache-Control"] = "no-cache"
    return response
