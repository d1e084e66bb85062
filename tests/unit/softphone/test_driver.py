from __future__ import annotations

import pytest

from lab.softphone.agent import Event, UserAgent
from lab.softphone.datagrams import bind_udp
from lab.softphone.driver import SipDriver
from lab.softphone.fields import Address
from lab.softphone.leg import Ended, Progressed
from tests.unit.softphone.network import BOB, media
from tests.waiting import until

OWN = Address("127.0.0.1", 5060)


async def test_a_driver_without_a_socket_still_tells_what_happened() -> None:
    told: list[Event] = []
    driver = SipDriver(UserAgent(OWN), lambda event, at: told.append(event))
    leg = driver.agent.invite("sip:x@h", media(40000), BOB, 0.0)
    leg.hang_up(0.0)
    driver.agent.handle_timer(1000.0)
    driver.pump()
    driver.close()
    assert [type(event) for event in told] == [Ended]


async def test_a_datagram_that_cannot_leave_changes_nothing() -> None:
    driver = SipDriver(UserAgent(OWN), lambda event, at: None)
    driver.open(bind_udp("127.0.0.1", 0))
    leg = driver.agent.invite("sip:x@h", media(40000), Address("127.0.0.1", 0), 0.0)
    driver.pump()
    leg.hang_up(0.0)
    driver.close()
    driver.close()
    assert driver.agent.malformed == 0


async def test_an_event_has_the_time_at_which_its_datagram_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lab.softphone.datagrams.arrival_time", lambda ancillary: 12.5)
    told: list[tuple[Event, float]] = []
    driver = SipDriver(UserAgent(OWN), lambda event, at: told.append((event, at)))
    with bind_udp("127.0.0.1", 0) as far:
        driver.open(bind_udp("127.0.0.1", 0))
        driver.agent.invite("sip:x@h", media(40000), Address(*far.getsockname()), 0.0)
        driver.pump()
        invite, ours = far.recvfrom(65_536)
        head = [
            f"{line};tag=b" if line.startswith("To:") else line
            for line in invite.decode().splitlines()
            if line.startswith(("Via:", "From:", "To:", "Call-ID:", "CSeq:"))
        ]
        answer = ["SIP/2.0 180 Ringing", *head, "Content-Length: 0", "", ""]
        far.sendto("\r\n".join(answer).encode(), ours)
        await until(lambda: bool(told))
        driver.close()
    [(event, at)] = told
    assert isinstance(event, Progressed)
    assert at == 12.5
