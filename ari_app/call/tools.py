"""The client tools that an agent may call to act on the call.

A tool that is unknown or is called wrongly is answered with ``is_error`` and a sentence that the
agent can speak about; it never ends the conversation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ari_app.call.signals import Outcome, Status

# A dialplan extension, a number or a SIP user: nothing that the dialplan would take for its own
# syntax.
_TARGET = re.compile(r"[A-Za-z0-9+*#._@-]{1,80}\Z")


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a tool did.

    Attributes:
        text: For the agent.
        is_error: The tool did not do what it was asked.
        ends_with: The call ends so, after the agent's last words; None: it goes on.
    """

    text: str
    is_error: bool = False
    ends_with: Outcome | None = None


def call_tool(name: str, parameters: Mapping[str, object]) -> ToolAnswer:
    """Run the tool ``name``."""
    match name:
        case "hang_up":
            return ToolAnswer(
                "The call ends after your last words.",
                ends_with=Outcome(Status.COMPLETED, "agent_hung_up"),
            )
        case "transfer_call":
            return _transfer_call(parameters)
        case _:
            return ToolAnswer(
                f"There is no tool {name[:64]!r} on this line. There are hang_up and "
                f"transfer_call.",
                is_error=True,
            )


def _transfer_call(parameters: Mapping[str, object]) -> ToolAnswer:
    to = parameters.get("to")
    if not isinstance(to, str) or not _TARGET.match(to):
        return ToolAnswer(
            "The call was not transferred: 'to' must be a number or an extension of letters, "
            "digits "
            "and + * # . _ @ -.",
            is_error=True,
        )
    if parameters.get("mode", "blind") != "blind":
        return ToolAnswer(
            "The call was not transferred: the only mode of transfer on this line is 'blind'.",
            is_error=True,
        )
    return ToolAnswer(
        "The caller is transferred after your last words.",
        ends_with=Outcome(Status.TRANSFER, "agent_transfer", transfer_to=to),
    )
