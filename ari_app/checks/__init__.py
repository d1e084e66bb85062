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

A way in that is no Asterisk gets a part of its own in `all`.
"""
