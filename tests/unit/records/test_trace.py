from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.records.trace import TraceContext, headers_of, read_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        # Other flags are not ours to judge.
        (f" 00-{TRACE}-{SPAN}-03 ", True),
        # A later version is read as far as this one goes.
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", True),
    ],
)
def test_what_is_of_the_standard(text: str, sampled: bool) -> None:
    assert read_traceparent(text) == TraceContext(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01\nX: y",
    ],
)
def test_what_is_not_counts_as_not_sent(text: str) -> None:
    assert read_traceparent(text) is None


def test_the_state_goes_on_as_it_came() -> None:
    found = read_traceparent(f"00-{TRACE}-{SPAN}-01", "vendor=1,other=x")
    assert headers_of(found) == {
        "traceparent": f"00-{TRACE}-{SPAN}-01",
        "tracestate": "vendor=1,other=x",
    }
    assert headers_of(None) == {}
    bad = read_traceparent(f"00-{TRACE}-{SPAN}-01", "a=1\r\nX-Other: 2")
    assert bad is not None
    assert "tracestate" not in bad.headers


def test_a_child_is_part_of_its_parent() -> None:
    parent = TraceContext(TRACE, SPAN, sampled=False, state="a=1")
    child = parent.child()
    assert (child.trace_id, child.parent_id, child.state) == (TRACE, SPAN, "a=1")
    assert read_traceparent(child.traceparent) == TraceContext(TRACE, child.span_id, sampled=False)
    assert child.span_id != parent.child().span_id


@given(st.text(max_size=300), st.text(max_size=600))
def test_any_text_is_read(text: str, state: str) -> None:
    found = read_traceparent(text, state)
    assert found is None or read_traceparent(found.traceparent, found.state) == found
