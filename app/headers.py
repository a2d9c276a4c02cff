"""Set the headers that keep browsers and caches from doing harm."""

from flask import Flask, Response, request

from app.config import current_config

SECURITY = {
    # Style and icon from this site, nothing else: no script, frame, form or font.
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
YEAR = "public, max-age=31536000, immutable"


def register(app: Flask) -> None:
    """Set the headers on every response, errors and static files included."""
    app.after_request(secure)
    app.after_request(limit_caching)


def secure(response: Response) -> Response:
    """Add the security headers."""
    response.headers.update(SECURITY)
    return response


def limit_caching(response: Response) -> Response:
    """Let nothing be stored but static files, and for long only those of this build.

    While an update rolls, an old process may be asked for a new build's file: its
    own would be kept for a year under the new address.
    """
    config = current_config()
    if request.endpoint != "static" or response.status_code >= 400:
        response.headers["Cache-Control"] = "no-store"
    elif config.production and request.args.get("v") == config.version:
        response.headers["Cache-Control"] = YEAR
    else:
        response.headers["Cache-Control"] = "no-cache"
    return response
