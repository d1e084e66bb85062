"""An Asterisk that runs on `asterisk-conf/production`, as a box of one's own would."""

from __future__ import annotations

from collections.abc import Mapping

from lab.asterisk import Installation, LabAsterisk
from lab.asterisk.config import template_dir

USERNAME = "voice-agent"
PASSWORD = "a long random text"
CRYPTED = (
    "$6$rounds=1000$ofthelab$"
    "3yctFnupMOWaaYSgKb2EwTx4VgYGnLwyWpn6cBFUEWxCshrWPsHwCUvkiIDmai.po//1hMwJcP17jbkyFQ95/1"
)
CARRIER_USER, CARRIER_PASSWORD, PHONE_PASSWORD = "customer", "of the carrier", "of the phone"
CARRIER, OTHER_CARRIER, PHONE = "127.0.0.1", "127.0.0.2", "127.0.0.3"
"""Addresses of this machine: SIP tells a carrier by its address."""
NEWER_MODULE = "res_websocket_client.so"
"""Not in Asterisk before 20.15 and 22.5."""
RTP_TIMEOUT_SECONDS = 3
"""Instead of 30, so that a test can wait for it."""


CUSTOMER = f"""
[{CARRIER_USER}](endpoint-basics)
context = callees
auth = {CARRIER_USER}
aors = {CARRIER_USER}
[{CARRIER_USER}](aor-basics)
[{CARRIER_USER}]
type = auth
auth_type = userpass
username = {CARRIER_USER}
password = {CARRIER_PASSWORD}
"""
"""How the carrier, one of the lab's Asterisks, knows the box: for its pjsip.conf."""


def production_files(installation: Installation, carrier_port: int = 5060) -> dict[str, str]:
    """The files as they are, but for what every box has to put in itself.

    Raises AssertionError where a file no longer says what is to be exchanged.
    """
    folder = template_dir() / "production"
    files = {path.name: path.read_text() for path in folder.glob("*.conf")}
    own: dict[str, Mapping[str, str]] = {
        "ari.conf": {"PUT-THE-HASH-HERE": CRYPTED},
        "http.conf": {"bindport = 8088": "bindport = @HTTP_PORT@"},
        "rtp.conf": {
            "rtpstart = 10000": "rtpstart = @RTP_FIRST@",
            "rtpend = 20000": "rtpend = @RTP_LAST@",
        },
        "musiconhold.conf": {"directory = moh": "directory = @RUN_DIR@/lib/moh"},
        "pjsip.conf": {
            "bind = 0.0.0.0:5060": "bind = @BIND@:@SIP_PORT@",
            "rtp_timeout = 30": f"rtp_timeout = {RTP_TIMEOUT_SECONDS}",
            "permit = 192.0.2.0/24": "permit = 127.0.0.0/8",
            "= sip:sip.carrier.example\n": f"= sip:{CARRIER}:{carrier_port}\n",
            "@sip.carrier.example": f"@{CARRIER}",
            "sip.carrier.example": CARRIER,
            "sip:192.0.2.10:5060": f"sip:{OTHER_CARRIER}:5060",
            "192.0.2.10": OTHER_CARRIER,
            "493023125001": CARRIER_USER,
            "PUT-THE-CARRIERS-PASSWORD-HERE": CARRIER_PASSWORD,
            "PUT-THE-PHONES-PASSWORD-HERE": PHONE_PASSWORD,
        },
    }
    for name, exchanges in own.items():
        for theirs, ours in exchanges.items():
            assert theirs in files[name], f"{name} no longer has {theirs!r}"
            files[name] = files[name].replace(theirs, ours)
    files["modules.conf"] = "".join(
        line
        for line in files["modules.conf"].splitlines(keepends=True)
        if not line.startswith(f"load = {NEWER_MODULE}")
        or (installation.module_dir / NEWER_MODULE).exists()
    )
    # It says what is to be added to a file that the box has; [options] is the lab's last section.
    options = files["asterisk.conf"].replace("[options]", "")
    files["asterisk.conf"] = (template_dir() / "asterisk.conf").read_text() + options
    return files


def production_asterisk(
    installation: Installation, files: Mapping[str, str] | None = None
) -> LabAsterisk:
    """A box that has not been started yet. `files` is what :func:`production_files` gave."""
    box = LabAsterisk(installation=installation, files=files or production_files(installation))
    box.ari_username, box.ari_password = USERNAME, PASSWORD
    return box
