"""Load: a process that behaves like an Asterisk with any number of calls.

`world` knows what an Asterisk knows (channels, bridges, who is in Stasis) and says which events
follow from what; `events` words them as Asterisk 22.10.1 does; `voice` is what callers say;
`timing` makes figures of the frames that came. These are pure. `line` is one call's media, `server`
the HTTP and WebSocket around it all, `generator` starts and ends calls.
"""

from lab.load.generator import LoadGenerator
from lab.load.server import LoadServer
from lab.load.timing import HeardReport, summarise

__all__ = ["HeardReport", "LoadGenerator", "LoadServer", "summarise"]
