"""Rendered speech, kept: a text is spoken once for each format."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from lab.practice_agent.formats import AudioFormat
from lab.practice_agent.voice import Voice

MAX_CACHE_BYTES = 64 * 1024 * 1024


class Renderer:
    """Speaks in a worker thread and remembers; the least recently used speech goes first."""

    def __init__(self, voice: Voice, *, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self._voice = voice
        self._max_bytes = max_bytes
        self._bytes = 0
        self._cache: OrderedDict[tuple[str, AudioFormat], bytes] = OrderedDict()
        self._lock = asyncio.Lock()

    async def render(self, text: str, audio_format: AudioFormat) -> bytes:
        """Return ``text`` as bytes of ``audio_format``."""
        key = text, audio_format
        if key not in self._cache:
            # One at a time: callers who wait for the same text find it in the cache.
            async with self._lock:
                if key not in self._cache:
                    audio = await asyncio.to_thread(self._speak, text, audio_format)
                    self._keep(key, audio)
                    return audio
        self._cache.move_to_end(key)
        return self._cache[key]

    def _speak(self, text: str, audio_format: AudioFormat) -> bytes:
        return audio_format.to_bytes(self._voice.speak(text, audio_format.rate_hz))

    def _keep(self, key: tuple[str, AudioFormat], audio: bytes) -> None:
        self._cache[key] = audio
        self._bytes += len(audio)
        while self._bytes > self._max_bytes and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._bytes -= len(oldest)
