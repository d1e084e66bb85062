"""A Twilio for tests and the demonstration: webhooks, TwiML, REST and Media Streams, with faults.

It behaves as Twilio's documentation and captures of live calls say, not as a client would like it.
`signatures`, `twiml`, `playout` and `account` are pure. No sound is mixed between calls: two that
are connected hear silence.
"""

from lab.twilio.account import Callee, Note, Number, Post
from lab.twilio.call import TwilioCall
from lab.twilio.server import RestError, Twilio
from lab.twilio.stream import MediaStream, StreamFaults

__all__ = [
    "Callee",
    "MediaStream",
    "Note",
    "Number",
    "Post",
    "RestError",
    "StreamFaults",
    "Twilio",
    "TwilioCall",
]
