"""The page at ``/docs``: one file without anything from elsewhere, so it works without a network.

It asks for the key and reads ``/openapi.json`` with it; by itself it tells nothing. So a browser
that brings no key gets the page all the same, with the status 401.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from http import HTTPStatus
from importlib import resources

from aiohttp import web

DOCS_PATH = "/docs"


def docs_page(status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    """The page."""
    text, policy = _page()
    return web.Response(
        status=status.value,
        text=text,
        content_type="text/html",
        headers={"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"},
    )


def sign_in(request: web.Request) -> web.Response | None:
    """The page, for a browser that wants it and has brought no key."""
    if request.path != DOCS_PATH or "text/html" not in request.headers.get("Accept", ""):
        return None
    return docs_page(HTTPStatus.UNAUTHORIZED)


@cache
def _page() -> tuple[str, str]:
    """The page and its Content-Security-Policy, which allows this one script and no other."""
    text = resources.files(__package__).joinpath("docs.html").read_text(encoding="utf-8")
    parts = {
        name: base64.b64encode(
            hashlib.sha256(
                re.findall(f"<{name}>(.*?)</{name}>", text, re.DOTALL)[0].encode()
            ).digest()
        ).decode()
        for name in ("script", "style")
    }
    policy = (
        f"default-src 'none'; script-src 'sha256-{parts['script']}'; "
        f"style-src 'sha256-{parts['style']}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy
