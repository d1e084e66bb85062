from __future__ import annotations

import pytest

from ari_app.process.addresses import (
    can_be_host,
    is_loopback,
    is_unspecified,
    join_host,
    origin,
    page_url,
    split_host,
    usable_url,
)


def test_who_can_be_reached_at_an_address() -> None:
    assert is_loopback("127.8.9.1")
    assert not is_loopback("example.org")
    assert is_unspecified("::")
    assert not is_unspecified("example.org")


@pytest.mark.parametrize(
    ("host", "port", "text"),
    [("10.0.0.7", 9000, "10.0.0.7:9000"), ("::1", 9000, "[::1]:9000"), ("pbx", 80, "pbx:80")],
)
def test_a_host_and_its_port_are_written_as_they_are_read(host: str, port: int, text: str) -> None:
    assert join_host(host, port) == text
    assert split_host(text) == (host, port)


def test_a_port_may_be_missing() -> None:
    assert split_host("media.example") == ("media.example", None)
    assert split_host("[::1]") == ("::1", None)


@pytest.mark.parametrize("text", ["", ":80", "pbx:0", "user@pbx:80", "pbx:80/path", "pbx:99999"])
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(ValueError):
        split_host(text)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("10.0.0.1", "http://10.0.0.1:8080/"),
        ("0.0.0.0", "http://127.0.0.1:8080/"),
        ("::", "http://[::1]:8080/"),
        ("fd00::1", "http://[fd00::1]:8080/"),
    ],
)
def test_where_a_browser_finds_a_listener(host: str, url: str) -> None:
    assert page_url(host, 8080) == url


def test_of_a_url_that_may_be_secret_its_origin_is_shown() -> None:
    assert origin("https://hooks.example:8443/T0/secret?key=k") == "https://hooks.example:8443"


def test_a_url_that_leads_somewhere() -> None:
    parts = usable_url("wss://agents.example/x", ("ws", "wss"))
    assert parts is not None and parts.hostname == "agents.example"
    for text in ("ftp://h", "http://", "http://h:0", "http://h:x", "http://[::1", "http://a..b"):
        assert usable_url(text) is None, text


def test_a_name_that_nobody_can_have() -> None:
    assert can_be_host("münchen.example")
    for name in (None, "", "a..b", "back\\slash"):
        assert not can_be_host(name), name
