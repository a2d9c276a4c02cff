"""Set the security and caching headers."""

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
YEAR = "public, max-age=31536000, immutable"


def register(app: Flask) -> None:
    """Set the headers on every response, including errors and static files."""
    app.after_request(secure)
    app.after_request(limit_caching)


def secure(response: Response) -> Response:
    """Add the security headers."""
    response.headers.update(SECURITY)
    return response


def limit_caching(response: Response) -> Response:
    """Allow caching of static files only, and for a year only for this build's files.

    During a rolling update, an old process may receive a request for a new build's
    file. Caches must not keep the old file under the new URL.
    """
    config = current_app.config
    if request.endpoint != "static" or response.status_code >= 400:
        response.headers["Cache-Control"] = "no-store"
    elif config["PRODUCTION"] and request.args.get("v") == config["VERSION"]:
        response.headers["Cache-Control"] = YEAR
    else:
        response.headers["Cache-Control"] = "no-cache"
    return response
