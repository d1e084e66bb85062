"""Which format the line gets: the one that needs the least resampling. Pure.

With a narrow-band caller every rate above 8 kHz would be made up by Asterisk, to be taken away
again on the other way: `slin` it is. With a wide-band caller the agent's own rate is best, for
nobody then resamples on our side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ari_app.audio.formats import AudioFormat
from audiosocket import SLIN, SLIN16, SLIN24, LineFormat

_CANDIDATES: Final = (SLIN, SLIN16, SLIN24)

# Asterisk's names of the codecs that carry more than 8 kHz (main/codec_builtin.c). What is not here
# counts as 8 kHz.
_WIDE_CODECS_HZ: Final = {
    "g722": 16000,
    "siren7": 16000,
    "speex16": 16000,
    "silk16": 16000,
    "slin16": 16000,
    "slin24": 24000,
    "silk24": 24000,
    "siren14": 32000,
    "speex32": 32000,
    "slin32": 32000,
    "slin44": 44100,
    "opus": 48000,
    "slin48": 48000,
    "slin96": 96000,
    "slin192": 192000,
}


@dataclass(frozen=True, slots=True)
class AgentFormats:
    """What an agent announced the last time.

    Attributes:
        hears: Its input format.
        speaks: Its output format.
    """

    hears: AudioFormat
    speaks: AudioFormat


# ElevenLabs' default for both, assumed of an agent that has not been met yet.
DEFAULT_AGENT_FORMATS: Final = AgentFormats(AudioFormat.pcm(16000), AudioFormat.pcm(16000))


def codec_rate_hz(codec: str) -> int:
    """The rate of one of Asterisk's codecs, such as `ulaw`, `g722` or `(opus)`."""
    return _WIDE_CODECS_HZ.get(codec.strip().strip("()").lower(), 8000)


def choose_line_format(
    wanted: str, *, wide: bool, caller_codec: str, agent: AgentFormats
) -> LineFormat:
    """Decide what is spoken on a call's line.

    Args:
        wanted: `AUDIOSOCKET_FORMAT`: a name, or `auto`.
        wide: This Asterisk has more than `slin`; an older one would label 16 kHz as 8 kHz.
        caller_codec: Asterisk's name of what the caller sends; empty when it is not known.
        agent: What the agent announced the last time.
    """
    if not wide:
        return SLIN
    if wanted != "auto":
        return LineFormat.by_name(wanted)
    caller_hz = codec_rate_hz(caller_codec)
    possible = [line for line in _CANDIDATES if line.rate_hz <= caller_hz]

    def effort(line: LineFormat) -> tuple[int, int]:
        conversions = sum(line.rate_hz != side.rate_hz for side in (agent.hears, agent.speaks))
        # At equal effort the better sound wins, up to what the agent can make use of.
        useful = min(line.rate_hz, max(agent.hears.rate_hz, agent.speaks.rate_hz))
        return conversions, -useful

    return min(possible, key=effort)
