from __future__ import annotations

import pytest

from ari_app.audio.formats import DEFAULT_AGENT_FORMATS, AgentFormats, AudioFormat
from ari_app.line.asterisk.media import choose_line_format, codec_rate_hz


def agent(hears: str, speaks: str) -> AgentFormats:
    return AgentFormats(AudioFormat.parse(hears), AudioFormat.parse(speaks))


@pytest.mark.parametrize(
    ("codec", "hears", "speaks", "line"),
    [
        ("ulaw", "pcm_16000", "pcm_16000", "slin"),
        ("alaw", "ulaw_8000", "ulaw_8000", "slin"),
        ("", "pcm_16000", "pcm_16000", "slin"),
        ("g722", "pcm_16000", "pcm_16000", "slin16"),
        ("(g722)", "pcm_8000", "pcm_8000", "slin"),
        ("g722", "pcm_24000", "pcm_24000", "slin16"),
        ("opus", "pcm_24000", "pcm_24000", "slin24"),
        ("opus", "pcm_16000", "pcm_24000", "slin24"),
        ("opus", "pcm_16000", "pcm_16000", "slin16"),
        ("opus", "pcm_44100", "pcm_44100", "slin24"),
        ("opus", "ulaw_8000", "pcm_16000", "slin16"),
        ("slin48", "ulaw_8000", "ulaw_8000", "slin"),
    ],
)
def test_auto_takes_what_needs_the_least_resampling(
    codec: str, hears: str, speaks: str, line: str
) -> None:
    chosen = choose_line_format("auto", wide=True, caller_codec=codec, agent=agent(hears, speaks))
    assert chosen.name == line


@pytest.mark.parametrize("wanted", ["slin", "slin16", "slin24", "auto"])
def test_an_older_asterisk_gets_slin(wanted: str) -> None:
    chosen = choose_line_format(
        wanted, wide=False, caller_codec="g722", agent=DEFAULT_AGENT_FORMATS
    )
    assert chosen.name == "slin"


@pytest.mark.parametrize("wanted", ["slin", "slin16", "slin24"])
def test_a_named_format_is_taken(wanted: str) -> None:
    chosen = choose_line_format(wanted, wide=True, caller_codec="", agent=DEFAULT_AGENT_FORMATS)
    assert chosen.name == wanted


def test_codecs() -> None:
    assert codec_rate_hz("OPUS") == 48000
    assert codec_rate_hz("codec2") == 8000
