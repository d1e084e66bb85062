"""Which of Asterisk's modules a call needs. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ari_app.checks.finding import Finding, failed, ok, warning

WHAT: Final = "Modules"

REQUIRED: Final = {
    "chan_audiosocket.so": "it opens the audio connection",
    "res_audiosocket.so": "chan_audiosocket needs it",
    "app_stasis.so": "the dialplan hands calls over with it",
    "res_stasis.so": "calls are held in the application by it",
    "res_stasis_answer.so": "calls are answered through it",
    "res_stasis_playback.so": "res_ari_channels needs it",
    "res_stasis_recording.so": "res_ari_channels needs it",
    "res_stasis_snoop.so": "res_ari_channels needs it",
    "res_http_websocket.so": "events come over it",
    "res_ari.so": "all requests come through it",
    "res_ari_asterisk.so": "the version is read through it",
    "res_ari_applications.so": "the application is looked after through it",
    "res_ari_channels.so": "channels are controlled through it",
    "res_ari_bridges.so": "calls are joined through it",
    "res_ari_events.so": "events come through it",
    "bridge_simple.so": "it joins the caller and the agent",
}
"""Without one of these no call can be taken."""

USEFUL: Final = {
    "codec_ulaw.so": "phones and trunks that speak G.711 \u00b5-law",
    "codec_alaw.so": "phones and trunks that speak G.711 A-law",
    "codec_resample.so": "wideband phones, and AUDIOSOCKET_FORMAT other than slin",
    "res_musiconhold.so": "music while a caller waits, on hold, or for a transfer's target",
    "app_amd.so": "answering machine detection (amd=true)",
    "res_ari_endpoints.so": "this check of the trunk",
    "func_dialplan.so": "this check of the dialplan",
}
"""Without one of these, something does not work."""

TIMING: Final = ("res_timing_timerfd.so", "res_timing_pthread.so", "res_timing_dahdi.so")
"""One of these gives the beat for music and for mixing."""


def load_or_install(name: str) -> str:
    """How to get a module, as a sentence."""
    return (
        f"Try `asterisk -rx 'module load {name}'`; if it is not installed, Debian has it in "
        "asterisk-modules. Then add it to modules.conf."
    )


def judge_modules(running: Iterable[str]) -> list[Finding]:
    """Say which modules are missing, given the names of those that run."""
    there = set(running)
    findings = [
        failed(WHAT, f"Asterisk has not loaded {name} ({why}). {load_or_install(name)}")
        for name, why in REQUIRED.items()
        if name not in there
    ]
    findings += [
        warning(WHAT, f"Asterisk has not loaded {name}, needed for {use}. {load_or_install(name)}")
        for name, use in USEFUL.items()
        if name not in there
    ]
    if there.isdisjoint(TIMING):
        findings.append(
            warning(
                WHAT,
                "Asterisk has loaded no source of timing, so neither music nor mixing works. "
                + load_or_install(TIMING[0]),
            )
        )
    return findings or [ok(WHAT, "all that a call needs are running")]
