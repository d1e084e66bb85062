"""AudioSocket, the way in which Asterisk carries a call's audio over TCP.

A server that echoes. Asterisk is told to connect by
`AudioSocket(40325ec2-5efd-4bd3-805f-53576e581d13,127.0.0.1:9092)` in the dialplan, or by ARI's
`POST /channels/externalMedia`:

```python
from uuid import UUID

from audiosocket import SLIN, AudioSocketConnection, AudioSocketServer, Kind
from linekit.clock import FrameClock
from linekit.playout import PlayoutBuffer


class Echo:
    def __init__(self) -> None:
        self.playout = PlayoutBuffer(SLIN.frame_bytes, SLIN.rate_hz)

    def line_connected(self, line: AudioSocketConnection) -> None:
        self.line = line
        line.next_frame = self.playout.next_frame

    def audio_received(self, payload: bytes, kind: Kind) -> None:
        self.playout.write(payload)

    def digit_received(self, digit: str) -> None:
        if digit == "#":
            self.line.hang_up()

    def tick(self, frames_due: int) -> None:
        pass

    def line_lost(self, reason: str) -> None:
        self.playout.flush()


async def serve(host: str, port: int) -> AudioSocketServer:
    clock = FrameClock()
    clock.start()
    server = AudioSocketServer(clock)
    await server.start(host, port)
    server.expect(UUID("40325ec2-5efd-4bd3-805f-53576e581d13"), Echo(), SLIN, ttl=60)
    return server
```

`frames` is pure: it touches no socket and reads no clock. `connection` and `server` are thin shells
around it for asyncio and uvloop, with the clock, the playout buffer and the listener of `linekit`.
"""

from audiosocket.connection import AudioSocketConnection, ConnectionHandler, ConnectionStats
from audiosocket.frames import (
    FORMATS,
    FRAME_MS,
    SLIN,
    SLIN12,
    SLIN16,
    SLIN24,
    SLIN32,
    SLIN44,
    SLIN48,
    SLIN96,
    SLIN192,
    Audio,
    AudioSocketError,
    Decoder,
    Dtmf,
    Error,
    FrameSizeError,
    Hangup,
    Identify,
    InvalidDigit,
    Kind,
    Message,
    NotIdentified,
    ProtocolError,
    SlinFormat,
    UnexpectedKind,
    UnknownKind,
    WrongLength,
    audio_header,
    encode,
)
from audiosocket.server import AudioSocketServer

__all__ = [
    "FORMATS",
    "FRAME_MS",
    "SLIN",
    "SLIN12",
    "SLIN16",
    "SLIN24",
    "SLIN32",
    "SLIN44",
    "SLIN48",
    "SLIN96",
    "SLIN192",
    "Audio",
    "AudioSocketConnection",
    "AudioSocketError",
    "AudioSocketServer",
    "ConnectionHandler",
    "ConnectionStats",
    "Decoder",
    "Dtmf",
    "Error",
    "FrameSizeError",
    "Hangup",
    "Identify",
    "InvalidDigit",
    "Kind",
    "Message",
    "NotIdentified",
    "ProtocolError",
    "SlinFormat",
    "UnexpectedKind",
    "UnknownKind",
    "WrongLength",
    "audio_header",
    "encode",
]
