"""JSON, base64 and frames: between bytes on the socket and messages. Pure.

Two messages are hot, and both are mostly base64: the caller's audio goes out by joining bytes,
the agent's comes in without a model validating megabytes of text.
"""

from __future__ import annotations

import os
import struct
from typing import Any, Final

import orjson
import pybase64
from pydantic import ValidationError

from ari_app.agent.elevenlabs.client_messages import ClientMessage
from ari_app.agent.elevenlabs.errors import MalformedMessage
from ari_app.agent.elevenlabs.server_messages import (
    SERVER_MESSAGES,
    Audio,
    ServerMessage,
    Unknown,
)
from linekit.unfinished import Unfinished

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover - a build without C extensions
    from websockets.utils import apply_mask

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""What a message may hold at most; the official SDKs receive as much."""

_MAX_VALUES = 100_000
"""That a message may hold. Text costs little, however long it is; but each value is an object, and
a million of them would hold up all calls for a second."""
_MAX_TYPE_LENGTH = 64
_AUDIO_HEAD = b'{"user_audio_chunk":"'
_AUDIO_TAIL = b'"}'


def encode_audio(data: bytes) -> bytes:
    """Encode `data`, in the agent's input format, as `{"user_audio_chunk": …}` in UTF-8 JSON."""
    return _AUDIO_HEAD + pybase64.b64encode(data) + _AUDIO_TAIL


def encode(message: ClientMessage | ServerMessage) -> bytes:
    """Encode `message` as UTF-8 JSON. Fields that are `None` are left out.

    Raises:
        ValueError: A free field (`custom_llm_extra_body`, …) holds what JSON cannot carry, such as
            an integer above 64 bits.
    """
    if isinstance(message, ServerMessage):
        tree = message.to_wire()
    else:
        tree = message.model_dump(mode="json", exclude_none=True)
    try:
        return orjson.dumps(tree)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"{type(message).__name__} cannot be written as JSON: {error}") from None


def decode(data: bytes | str) -> ServerMessage | Unknown:
    """Decode one message from the agent.

    Old forms are understood: a payload directly in the message instead of under its key, ids as
    text, `null` for absent, missing optional fields.

    Raises:
        MalformedMessage: It is none; nothing else is raised, whatever `data` holds.
    """
    if isinstance(data, bytes) and (sound := _sound_in(data)) is not None:
        # Without its sound a message is short, and a parser need not look at each letter of that.
        start, end = sound
        audio = _decode(data[:start] + data[end:], memoryview(data)[start:end])
        if audio is not None:
            return audio
    message = _decode(data, None)
    assert message is not None
    return message


_SOUND_KEY: Final = b'"audio_base_64"'


def _sound_in(data: bytes) -> tuple[int, int] | None:
    """Return where the base64 of an audio message stands, if it is one in its usual form."""
    key = data.find(_SOUND_KEY)
    if key < 0:
        return None
    start = data.find(b'"', key + len(_SOUND_KEY)) + 1
    if start <= 0 or data[key + len(_SOUND_KEY) : start - 1].strip() != b":":
        return None
    end = data.find(b'"', start)
    if end < 0 or data.find(b"\\", start, end) >= 0 or data.find(_SOUND_KEY, end) >= 0:
        return None
    return start, end


def _decode(data: bytes | str, sound: memoryview | None) -> ServerMessage | Unknown | None:
    """Decode a message, or one out of which its sound was taken; None: that was no audio."""
    if _values(data) > _MAX_VALUES:
        raise MalformedMessage("too_many_values")
    try:
        tree = orjson.loads(data)
    except ValueError:
        raise MalformedMessage("not_json") from None
    if not isinstance(tree, dict):
        raise MalformedMessage("not_an_object")
    kind = tree.pop("type", None)
    if not isinstance(kind, str):
        raise MalformedMessage("no_type")
    model = SERVER_MESSAGES.get(kind)
    if model is None:
        return Unknown(kind[:_MAX_TYPE_LENGTH]) if sound is None else None
    payload = tree.get(model.payload_key)
    if payload is None:
        payload = tree
    elif not isinstance(payload, dict):
        raise MalformedMessage("bad_payload", f"{kind}: the payload is no object")
    if model is Audio:
        audio = _fast_audio(payload, sound)
        if audio is not None:
            return audio
    if sound is not None:
        return None
    try:
        return model.model_validate(payload)
    except ValidationError as error:
        raise MalformedMessage("bad_payload", f"{kind}: {_where(error)}") from None


def _values(data: bytes | str) -> int:
    """Return how many values a message holds, at most; 0 for one that is too short for many."""
    if len(data) <= _MAX_VALUES:
        return 0
    if isinstance(data, str):
        data = data.encode(errors="replace")
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def _fast_audio(payload: dict[str, Any], sound: memoryview | None) -> Audio | None:
    """Return the audio message in its usual form, checked by hand; `None` leaves it to the model.

    Args:
        payload: The message's.
        sound: Its base64, where that was taken out.
    """
    text, event_id = payload.get("audio_base_64"), payload.get("event_id")
    # Not `isinstance`, nor a pattern: compiled, what is known to be an int is no bool any more.
    if type(event_id) is not int or not isinstance(text, str):
        return None
    is_final = payload.get("is_final")
    if not (is_final is None or isinstance(is_final, bool)) or not -(2**63) <= event_id < 2**63:
        return None
    if sound is not None and text:
        return None
    try:
        data = pybase64.b64decode(text if sound is None else sound, validate=True)
    except ValueError:
        raise MalformedMessage("bad_audio", "audio: no valid base64") from None
    return Audio.model_construct(
        data=data,
        event_id=event_id,
        is_final=is_final is True,
    )


def _where(error: ValidationError) -> str:
    # Names of fields and kinds of error only: values may be personal.
    return ", ".join(
        f"{'.'.join(map(str, item['loc'])) or 'message'} ({item['type']})"
        for item in error.errors(include_url=False, include_context=False, include_input=False)[:3]
    )[:200]


class Masks:
    """Masks for a client's frames, from the system's strong random numbers (RFC 6455, section 5.3);
    many of them at a time, for a system call for each costs more than the rest of a frame."""

    def __init__(self) -> None:
        self._pool = b""
        self._next = 0

    def take(self) -> bytes:
        """Return four bytes that nobody else was given."""
        if self._next == len(self._pool):
            self._pool, self._next = os.urandom(4096), 0
        mask = self._pool[self._next : self._next + 4]
        self._next += 4
        return mask


_masks: Final = Masks()
_SHORT: Final = struct.Struct("!BB")
_MIDDLE: Final = struct.Struct("!BBH")
_LONG: Final = struct.Struct("!BBQ")


class ServerFrames:
    """Cuts what a server sends, from its first frame on, into whole frames (RFC 6455, section 5.2).

    What is no frame of a server's, or longer than it may be, is passed on as it comes, and so is
    all that follows: whoever gets it refuses it.

    Args:
        max_bytes: That a frame may hold; so much may be held back until it is whole.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = Unfinished()
        self._gives_up = False

    def feed(self, data: bytes) -> list[tuple[bytes, int]]:
        """Return the frames that are whole now, in order, and where in each its message begins; 0:
        it is not a whole, final message."""
        if self._gives_up:
            return [(data, 0)]
        data = self._rest.before(data)
        frames: list[tuple[bytes, int]] = []
        start, end, needed = 0, len(data), 0
        while start < end:
            short = data[start + 1] if start + 1 < end else 0
            body = start + _HEAD_BYTES.get(short, 2)
            if body > end:
                needed = body - start
                break
            size = short if short < 126 else int.from_bytes(data[start + 2 : body], "big")
            # Beyond 127 is the bit of a mask.
            if short > 127 or size > self._max_bytes:
                self._gives_up = True
                frames.append((data[start:], 0))
                return frames
            stop = body + size
            if stop > end:
                needed = stop - start
                break
            frames.append((data[start:stop], body - start if data[start] in _WHOLE else 0))
            start = stop
        if start < end:
            self._rest.hold(data[start:], needed)
        return frames


_HEAD_BYTES: Final = {126: 4, 127: 10}
"""Of frames whose length does not stand in their second byte."""
_WHOLE: Final = (0x81, 0x82)
"""How a whole text or binary message begins."""


PONG_FRAME: Final = b"\x8a\x00"
"""The answer to a ping without data, from a server."""


def ping_frame() -> bytes:
    """Make a ping without data, from a client (RFC 6455, section 5.5.2)."""
    return _SHORT.pack(0x89, 0x80) + _masks.take()


def text_frame(payload: bytes) -> bytes:
    """Make a whole, final text frame from a client (RFC 6455, section 5.2)."""
    size, mask = len(payload), _masks.take()
    if size < 126:
        head = _SHORT.pack(0x81, 0x80 | size)
    elif size < 65536:
        head = _MIDDLE.pack(0x81, 0x80 | 126, size)
    else:
        head = _LONG.pack(0x81, 0x80 | 127, size)
    return b"".join((head, mask, apply_mask(payload, mask)))
