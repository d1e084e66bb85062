from __future__ import annotations

from lab.softphone.agent import UserAgent
from lab.softphone.driver import SipDriver, bind_udp
from lab.softphone.events import Ended, Event
from lab.softphone.fields import Address
from tests.unit.softphone.network import BOB, media

OWN = Address("127.0.0.1", 5060)


async def test_a_driver_without_a_socket_still_tells_what_happened() -> None:
    told: list[Event] = []
    driver = SipDriver(UserAgent(OWN), told.append)
    leg = driver.agent.invite("sip:x@h", media(40000), BOB, 0.0)
    leg.hang_up(0.0)
    driver.agent.handle_timer(1000.0)
    driver.pump()
    await driver.close()
    assert [type(event) for event in told] == [Ended]


async def test_an_undelivered_datagram_changes_nothing() -> None:
    driver = SipDriver(UserAgent(OWN), lambda event: None)
    await driver.open(bind_udp("127.0.0.1", 0))
    driver.error_received(ConnectionRefusedError())
    assert driver.agent.malformed == 0
    await driver.close()
    await driver.close()
