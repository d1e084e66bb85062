"""A headless SIP phone for tests, benchmarks and the demonstration.

The cores (`agent`, `leg`, `transaction`, `sip`, `sdp`, `mouth`, `ear`, `rtp`) are pure: they touch
no socket and read no clock. `phone`, `call` and `media` are the shells around them.
"""

from lab.softphone.call import Call, Progress
from lab.softphone.ear import Arrival, HeardStats
from lab.softphone.ending import Ending
from lab.softphone.errors import CallFailed, CallOver, SoftphoneError
from lab.softphone.impairment import Impairment
from lab.softphone.mouth import MouthFull, Utterance
from lab.softphone.phone import Phone
from lab.softphone.policy import BUSY, Answer, Policy, Reject, Ring
from lab.softphone.transaction import Timers

__all__ = [
    "BUSY",
    "Answer",
    "Arrival",
    "Call",
    "CallFailed",
    "CallOver",
    "Ending",
    "HeardStats",
    "Impairment",
    "MouthFull",
    "Phone",
    "Policy",
    "Progress",
    "Reject",
    "Ring",
    "SoftphoneError",
    "Timers",
    "Utterance",
]
