"""Finds out what is wrong with a set-up, and says how to mend it.

`serve` asks `check_asterisk` and `check_agent_key` before it takes calls; `ari-app
check` runs all of them (`check_all`). One module for each subject:

* `call_log`: where ended calls are kept.
* `host`: this machine: settings, files, folders, limits; `env_file`: names that are no settings.
* `agent`: the key and the agent.
* `asterisk`: what ARI tells: version, modules, limits, trunks.
* `channel_probe`: what a channel tells: the way back to us, clock, dialplan.
* `dialer`: the address for a dialer of one's own.
* `twilio`: the address at which Twilio reaches us, the account, its number.
* `microphone`: this machine's sound devices, where they are the way in.
* `webhooks`: whoever is told of calls, and the agent's reports.
* `conf`: Asterisk's own files, on its own machine.

A way in that is no Asterisk gets a part of its own in `all`. Each is imported when it is asked for:
`serve` has use for a few.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ari_app.checks.agent import check_agent_key
    from ari_app.checks.all import check_all
    from ari_app.checks.asterisk import check_asterisk
    from ari_app.checks.call_log import check_open_log
    from ari_app.checks.channel_probe import check_dial_back
    from ari_app.checks.conf import check_conf
    from ari_app.checks.dialer import check_dialer, check_dialer_service
    from ari_app.checks.finding import Finding, Use, Verdict, what_works
    from ari_app.checks.host import check_descriptors, check_settings
    from ari_app.checks.microphone import check_microphone
    from ari_app.checks.twilio import check_twilio, check_twilio_account

__all__ = [
    "Finding",
    "Use",
    "Verdict",
    "check_agent_key",
    "check_all",
    "check_asterisk",
    "check_conf",
    "check_descriptors",
    "check_dial_back",
    "check_dialer",
    "check_dialer_service",
    "check_microphone",
    "check_open_log",
    "check_settings",
    "check_twilio",
    "check_twilio_account",
    "what_works",
]

_WHERE: Final = {
    "check_agent_key": "agent",
    "check_all": "all",
    "check_dial_back": "channel_probe",
    "check_asterisk": "asterisk",
    "check_open_log": "call_log",
    "check_conf": "conf",
    "check_dialer": "dialer",
    "check_dialer_service": "dialer",
    "Finding": "finding",
    "Use": "finding",
    "Verdict": "finding",
    "what_works": "finding",
    "check_descriptors": "host",
    "check_settings": "host",
    "check_microphone": "microphone",
    "check_twilio": "twilio",
    "check_twilio_account": "twilio",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
