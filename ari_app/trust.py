"""Whom we trust when we connect over TLS. Certificates and host names are always checked."""

from __future__ import annotations

import ssl
from pathlib import Path

from ari_app.errors import ConfigError


def trusting(ca_file: str | Path | None, setting: str) -> ssl.SSLContext:
    """A client's TLS, with the system's certificates, or with those of a PEM file alone.

    Args:
        ca_file: The file; None for the system's.
        setting: What names the file, for the error.

    Raises:
        ConfigError: The file cannot be read, or holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        why = "holds no certificate in PEM form"
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    raise ConfigError(f"{setting} {ca_file} {why}.")


def why_untrusted(error: BaseException) -> str:
    """What is wrong with a server's certificate: its issuer, its time, or its name.

    Args:
        error: What the handshake failed with.
    """
    return error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else str(error)
