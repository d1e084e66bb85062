"""AudioSocket, the way in which Asterisk carries a call's audio over TCP.

A server that echoes. Asterisk is told to connect by
`AudioSocket(40325ec2-5efd-4bd3-805f-53576e581d13,127.0.0.1:9092)` in the dialplan, or by ARI's
`POST /channels/externalMedia`:

```python
from uuid import UUID

from audiosocket import SLIN, AudioSocketServer, FrameClock, Kind, Line, PlayoutBuffer


class Echo:
    def __init__(self) -> None:
        self.playout = PlayoutBuffer(SLIN.frame_bytes, SLIN.rate_hz)

    def line_connected(self, line: Line) -> None:
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

`frames`, `codec`, `playout`, `schedule`, `fade`, `sources`, `expectations`, `census`, `networks`,
`pace` and `refusals` are pure: they touch no socket and read no clock. `clock`, `listener`,
`entrance`, `line`, `server` and `client` are thin shells around them for asyncio and uvloop.
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
    LineFormat,
    Message,
    NotIdentified,
    ProtocolError,
    UnexpectedKind,
    UnknownKind,
    WrongLength,
    audio_header,
    encode,
)
from audiosocket.server import AudioSocketServer
from lab.load.audiosocket_client import (
    AudioSocketClient,
    ClientStats,
    FrameSource,
    Heard,
    pcm_source,
    silence_source,
    tone_source,
)
from linekit.clock import Due, FrameClock, Schedule
from linekit.listener import ConnectionLimits, Listener, Networks
from linekit.playout import FlushResult, PlayoutBuffer, PlayoutStats

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
    "AudioSocketClient",
    "AudioSocketError",
    "AudioSocketServer",
    "ClientStats",
    "ConnectionLimits",
    "Decoder",
    "Dtmf",
    "Due",
    "Error",
    "FlushResult",
    "FrameClock",
    "FrameSizeError",
    "FrameSource",
    "Hangup",
    "Heard",
    "Identify",
    "InvalidDigit",
    "Kind",
    "Line",
    "LineFormat",
    "LineHandler",
    "LineStats",
    "Listener",
    "Message",
    "Networks",
    "NotIdentified",
    "PlayoutBuffer",
    "PlayoutStats",
    "ProtocolError",
    "Schedule",
    "UnexpectedKind",
    "UnknownKind",
    "WrongLength",
    "audio_header",
    "encode",
    "pcm_source",
    "silence_source",
    "tone_source",
]
