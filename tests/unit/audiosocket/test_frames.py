from __future__ import annotations

import pytest

from audiosocket.frames import FORMATS, SLIN, SLIN16, SLIN24, SLIN44, SLIN192, Kind, SlinFormat


@pytest.mark.parametrize(
    ("fmt", "frame_bytes"),
    [(SLIN, 320), (SLIN16, 640), (SLIN24, 960), (SLIN44, 1764), (SLIN192, 7680)],
)
def test_a_frame_is_20_ms(fmt: SlinFormat, frame_bytes: int) -> None:
    assert fmt.frame_bytes == frame_bytes
    assert fmt.frame_samples * 50 == fmt.rate_hz


def test_formats_are_found_by_name() -> None:
    assert SlinFormat.by_name("slin") is SLIN
    assert [SlinFormat.by_name(fmt.name) for fmt in FORMATS] == list(FORMATS)
    assert [kind for kind in Kind if kind.is_audio] == [fmt.kind for fmt in FORMATS]


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="no AudioSocket format 'ulaw'; there are slin, slin12"):
        SlinFormat.by_name("ulaw")
