from __future__ import annotations

import pytest

from linekit.listener import Networks, counted_as


@pytest.mark.parametrize(
    ("networks", "inside", "outside"),
    [
        ("", ["10.0.0.1", "::1", "not an address"], []),
        ("10.0.0.0/8", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.1", "::1", "not an address"]),
        ("192.0.2.7, 192.0.2.9\t198.51.100.0/24", ["192.0.2.9", "198.51.100.255"], ["192.0.2.8"]),
        ("2001:db8::/32", ["2001:db8::1", "2001:db8:1::"], ["2001:db9::1", "10.0.0.1"]),
        ("fe80::/10", ["fe80::1%eth0"], ["::1"]),
        ("::ffff:10.0.0.0/104", ["10.9.9.9", "::ffff:10.0.0.1"], ["11.0.0.1"]),
        ("0.0.0.0/0", ["8.8.8.8", "::ffff:8.8.8.8"], ["::1"]),
    ],
)
def test_what_is_inside(networks: str, inside: list[str], outside: list[str]) -> None:
    found = Networks(networks)
    assert [host for host in inside if host not in found] == []
    assert [host for host in outside if host in found] == []


@pytest.mark.parametrize("word", ["10.0.0.1/8", "10.0.0.0/33", "asterisk", "10.0.0.0/8/8"])
def test_what_is_no_network_is_named(word: str) -> None:
    with pytest.raises(ValueError, match=f"'{word}' is no network"):
        Networks(f"127.0.0.1 {word}")


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:7::1", "2001:db8:0:7::/64"),
        ("2001:db8:0:7:ffff::", "2001:db8:0:7::/64"),
        ("2001:db8:0:8::1", "2001:db8:0:8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
    ],
)
def test_what_an_address_counts_as(host: str, counted: str) -> None:
    assert counted_as(host) == counted
