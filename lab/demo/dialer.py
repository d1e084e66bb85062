"""A dialer of one's own brings the demonstration's caller, without any Asterisk."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack

import aiohttp

from ari_app.bridge import VoiceBridge
from lab.asterisk import LabError
from lab.demo.progress import Steps
from lab.demo.ways import Telephone, packets
from lab.dialer import FORMAT, DialerCall

_CALL = {
    "call_id": "demo-1",
    "caller_number": "+15550100001",
    "called_number": "+15550100002",
    "audio": {"format": FORMAT},
}


class DialerWay:
    """A dialer of one's own calls, over a WebSocket."""

    opening = "A dialer of one's own calls an agent, without any Asterisk."
    far_side = "The service"
    begins = "request"
    page = "docs/custom-dialer.md"
    chain = "dialer (a WebSocket)"
    invitation = None
    number = ""
    _session: aiohttp.ClientSession
    _stack: AsyncExitStack

    async def prepare(self, stack: AsyncExitStack, steps: Steps) -> Mapping[str, object]:
        return {"dialer_type": "custom"}

    def listens(self, bridge: VoiceBridge) -> str:
        return "HTTP on {}:{}".format(*bridge.api_address)

    async def connect(self, bridge: VoiceBridge, stack: AsyncExitStack, steps: Steps) -> None:
        url = "http://{}:{}".format(*bridge.api_address)
        with steps.step("Dialer") as step:
            self._session = await stack.enter_async_context(aiohttp.ClientSession(url))
            self._stack, self.number = stack, f"{url}/webhook/initiate-call"
            try:
                async with self._session.get("/health/ready") as ready:
                    step.result = f"finds the service {(await ready.json())['status']}"
            except aiohttp.ClientError as error:
                raise LabError(f"The service does not answer: {error}.") from None

    async def dial(self) -> Telephone:
        call = DialerCall()
        self._stack.push_async_callback(call.close)
        call.ask(self._session, _CALL)
        return call

    def figures(self, call: Telephone) -> list[tuple[str, str]]:
        return packets(call)
