"""Imports aiohttp without reading the system's certificates. Import this before aiohttp.

aiohttp reads them while it is imported, for requests that come without an SSL context: 2 MB of
every process, and 40 ms, a tenth of the start. Our requests bring one (`ari_app.process.network`).
For any other the certificates are read before its first connection.
"""

from __future__ import annotations

import ssl
import sys
from typing import Any


class _ReadLater(ssl.SSLContext):
    """Trusts the system's certificates, and reads them before its first connection."""

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        self._read()
        return self.wrap_socket(*args, **options)

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        self._read()
        return self.wrap_bio(*args, **options)

    def _read(self) -> None:
        self.__class__ = ssl.SSLContext  # type: ignore[assignment]
        self.load_default_certs()


def _read_later(context: ssl.SSLContext, *purpose: ssl.Purpose) -> None:
    context.__class__ = _ReadLater


if "aiohttp" not in sys.modules:
    _reads = ssl.SSLContext.load_default_certs
    ssl.SSLContext.load_default_certs = _read_later  # type: ignore[assignment, method-assign]
    try:
        import aiohttp  # noqa: F401
    finally:
        ssl.SSLContext.load_default_certs = _reads  # type: ignore[method-assign]
