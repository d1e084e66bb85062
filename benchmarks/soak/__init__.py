"""The soak: mixed calls and faults for a long time, through a real Asterisk, and what is left over.

Pure parts: `plan` (which calls), `schedule` (which faults), `gaps` and `hearing` (what a phone
hears), `scrape` (metrics), `fit` (growth), `ledger` (how calls ended), `verdicts` (goals). Around
them: `world` (agents and dialplan), `callers` and `scenarios` (the phones' process), `programs` and
`inject` (processes and what is done to them), `sampler`, `run`, and `command` at the top.
"""
