"""Webhooks: what happens to calls is told to others, signed, until they have it.

`events` says what is told, `schedule` when it is tried again, `signing` how it is signed: all three
are pure. `spool` keeps it on disk, `keeper` is the thread that does so, `sender` sends it, and
`outbox` joins them.
"""
