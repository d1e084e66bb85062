from __future__ import annotations

import pytest

from ari_app.line.asterisk.names import trunk_of


@pytest.mark.parametrize(
    ("name", "trunk"),
    [
        ("PJSIP/trunk-00000012", "PJSIP/trunk"),
        ("PJSIP/trunk-north-0000abcd", "PJSIP/trunk-north"),
        ("PJSIP/100-0000000a", "PJSIP/100"),
        ("SIP/provider-00000001", "SIP/provider"),
        ("IAX2/branch-4711", "IAX2/branch"),
        ("DAHDI/i1/03023125001-2", "DAHDI/i1"),
        ("DAHDI/4-1", "DAHDI/4"),
        # What was dialled, and not by what.
        ("Local/+493023125001@out-00000001;2", ""),
        ("AudioSocket/127.0.0.1:9092-1", ""),
        ("PJSIP/", ""),
        ("", ""),
    ],
)
def test_the_endpoint_stands_in_a_channels_name(name: str, trunk: str) -> None:
    assert trunk_of(name) == trunk
