from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.records.record import CallFacts
from ari_app.tools.http_config import HttpTool
from ari_app.tools.http_tools import build_request

FACTS = CallFacts(session_id="s1", caller_number="+493023125001")


def tool(**changes: Any) -> HttpTool:
    names = changes.pop("takes", ["id", "q"])
    return HttpTool.model_validate(
        {
            "name": "ask",
            "description": "Asks.",
            "url": "https://crm.example/orders/{id}",
            "parameters": {
                "type": "object",
                "properties": {name: {} for name in names},
                "required": names,
            },
            **changes,
        }
    )


def test_a_body_carries_what_the_path_does_not() -> None:
    request = build_request(
        tool(from_call={"phone": "caller_number"}), {"id": "A 7/8", "q": [1, None], "x": 1}, FACTS
    )
    assert request.method == "POST"
    assert str(request.url) == "https://crm.example/orders/A%207%2F8"
    assert orjson.loads(request.body or b"") == {"q": [1, None], "phone": "+493023125001"}


def test_a_query_carries_what_the_path_does_not() -> None:
    get = tool(method="GET", url="http://h:81/o/{id}?full=1", takes=["id", "q", "n", "b", "o"])
    given = {"id": 7, "q": ["a&b=c", 2], "n": None, "b": True, "o": {"k": "ä"}}
    request = build_request(get, given, FACTS)
    assert request.body is None
    assert str(request.url).startswith("http://h:81/o/7?full=1&q=a%26b%3Dc&q=2&b=true&o=%7B")
    assert parse_qsl(urlsplit(str(request.url)).query)[-1] == ("o", '{"k":"ä"}')


def test_no_query_at_all() -> None:
    request = build_request(tool(method="DELETE", takes=["id"]), {"id": "7"}, FACTS)
    assert str(request.url) == "https://crm.example/orders/7"


def test_a_place_is_filled_once() -> None:
    two = tool(url="https://crm.example/{id}/{q}")
    request = build_request(two, {"id": "{q}", "q": "{id}"}, FACTS)
    assert str(request.url) == "https://crm.example/%7Bq%7D/%7Bid%7D"


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../b",
        "..\\x",
        "%2e%2e/x",
        "..%2fx",
        " .. ",
        "a\nb",
        "%00",
        "x" * 201,
    ],
)
def test_values_that_could_leave_their_segment(value: str) -> None:
    with pytest.raises(ValueError, match="'id' cannot be used in the tool's address"):
        build_request(tool(), {"id": value, "q": 1}, FACTS)


@pytest.mark.parametrize("value", ["...", "a..b", "1.2", "-", "über"])
def test_values_that_stay_in_it(value: str) -> None:
    url = build_request(tool(), {"id": value, "q": 1}, FACTS).url
    assert unquote(url.raw_path) == f"/orders/{value}"


TRICKS = st.text("./\\@:?#&=%{}[]a1é \n", max_size=12) | st.text(max_size=12)


@given(TRICKS, TRICKS, st.sampled_from(["GET", "POST"]))
def test_no_value_changes_where_a_request_goes(value: str, q: str, method: str) -> None:
    try:
        request = build_request(tool(method=method), {"id": value, "q": q}, FACTS)
    except ValueError:
        return
    url = urlsplit(str(request.url))
    assert (url.scheme, url.netloc, url.fragment) == ("https", "crm.example", "")
    assert (request.url.host, request.url.port) == ("crm.example", 443)
    start, orders, last = url.path.split("/")
    assert (start, orders, unquote(last)) == ("", "orders", value)
    if method == "GET":
        assert parse_qsl(url.query, keep_blank_values=True) == [("q", q)]
    else:
        assert url.query == ""
        assert orjson.loads(request.body or b"") == {"q": q}
