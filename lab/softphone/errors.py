"""What can go wrong on the phone.

SoftphoneError
├── SipError      a SIP message that breaks RFC 3261's grammar
├── SdpError      a session description that cannot be read or agreed upon
├── RtpError      a datagram that is no RTP packet
├── CallFailed    a call, or a change to one, that the far end refused or never answered
└── CallOver      the call ended while somebody waited for something in it
"""

from __future__ import annotations


class SoftphoneError(Exception):
    """The base of all errors of this package."""


class SipError(SoftphoneError):
    """A SIP message, or one of its header fields, cannot be read."""


class SdpError(SoftphoneError):
    """A session description cannot be read, or offers nothing that we speak."""


class RtpError(SoftphoneError):
    """A datagram is not an RTP packet of version 2."""


class CallFailed(SoftphoneError):
    """A call was not answered, or a request within it was refused.

    `status` is the final SIP status (486 busy, 603 declined, 404 unknown, ...). 408 stands for no
    answer at all: from the far end, from the network or within the caller's own patience.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason


class CallOver(SoftphoneError):
    """The call ended, so what was waited for will not happen."""
