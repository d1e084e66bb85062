"""Docker's question whether a container is well: exit code 0 when it is.

Takes an `http://` URL, which must answer below 400, or `tcp://HOST:PORT`, which must accept.
Without one it asks the service's own readiness at API_BIND, and says what is missing.
"""

import os
import socket
import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

PATIENCE_S = 4


def own_url() -> str:
    """Where the service answers from inside its container."""
    host, _, port = os.environ.get("API_BIND", "127.0.0.1:8080").rpartition(":")
    if host in ("0.0.0.0", "[::]"):
        host = "127.0.0.1"
    return f"http://{host}:{port}/health/ready"


def ask(url: str) -> str:
    """Return what is answered. Raises OSError when it is not well."""
    parts = urlsplit(url)
    if parts.scheme == "tcp":
        with socket.create_connection((parts.hostname or "", parts.port or 0), PATIENCE_S):
            return "open"
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return str(answer.read(2000).decode(errors="replace"))
    except urllib.error.HTTPError as error:
        raise OSError(error.read(2000).decode(errors="replace")) from None


def main() -> int:
    """Ask, print what was answered, return the exit code."""
    url = sys.argv[1] if len(sys.argv) > 1 else own_url()
    try:
        sys.stdout.write(ask(url))
    except OSError as error:
        sys.stdout.write(f"{url}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
