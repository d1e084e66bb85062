"""The agents, the dialplan and the tools of a soak. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from benchmarks.soak.plan import AGENT_FORMATS, CallPlan, Kind

WAIT_SECONDS = 20
TARGET_NUMBER = "+493023125040"
"""Who is asked in an attended transfer."""
CALLEE_PREFIX = "+493010"
"""Placed calls go to this and the plan's number, six digits."""
STRANDED_EXTENSION = "7999"
_WAITING_EXTENSION = "7998"


class Role(StrEnum):
    """Who the caller talks to. Texts are numbers: the voice makes a sweep of so many seconds."""

    TALKER = "talker"
    CLOSER = "closer"
    TELLER = "teller"
    SWITCHBOARD = "switchboard"
    CONSULTER = "consulter"
    KEYPAD = "keypad"
    CLERK = "clerk"
    DROPPER = "dropper"


_ROLES: dict[Kind, Role] = {
    Kind.AGENT_ENDS: Role.CLOSER,
    Kind.BLIND: Role.SWITCHBOARD,
    Kind.ATTENDED: Role.CONSULTER,
    Kind.BARGE_IN: Role.TELLER,
    Kind.DIGITS: Role.KEYPAD,
    Kind.TOOL: Role.CLERK,
    Kind.AGENT_DROPS: Role.DROPPER,
}


def agent_id(plan: CallPlan) -> str:
    """The agent of a call: its role and its format, which the practice agent understands."""
    return f"{_ROLES.get(plan.kind, Role.TALKER)}-{plan.agent_format}"


def agent_ids() -> list[str]:
    """All of them."""
    return [f"{role}-{agent_format}" for role in Role for agent_format in AGENT_FORMATS]


def extension(plan: CallPlan) -> str:
    """What a phone dials."""
    match plan.kind:
        case Kind.STRANDED:
            return STRANDED_EXTENSION
        case Kind.WAITING:
            return _WAITING_EXTENSION
        case _:
            return _extension(agent_id(plan))


def called_number(plan: CallPlan) -> str:
    """Whom the service calls, for a call that it places."""
    return f"{CALLEE_PREFIX}{plan.number:06d}"


def profile(name: str, **faults: Any) -> dict[str, Any]:
    """An agent by its id, with faults, as the practice agent takes it."""
    role_name, _, agent_format = name.partition("-")
    role = Role(role_name)
    described: dict[str, Any] = {
        "dialogue": _DIALOGUES[role],
        "formats": {"user_input": agent_format, "agent_output": agent_format},
    }
    if role is Role.DROPPER:
        faults = {"close": {"code": 1006, "mid_response": True, "response": 2}, **faults}
    return {**described, "faults": faults} if faults else described


def book() -> dict[str, Any]:
    """All agents, as an `AgentBook`."""
    return {"default": None, "agents": {name: profile(name) for name in agent_ids()}}


def dialplan() -> str:
    """What is added to the lab's: a way to every agent, and landings that name the caller."""
    lines = ["[from-phones]"]
    for name in agent_ids():
        lines += [
            f"exten => {_extension(name)},1,Stasis(${{APP}},agent_id={name})",
            " same => n,Goto(soak-landing,s,1)",
        ]
    lines += [
        f"exten => {_WAITING_EXTENSION},1,Stasis(${{APP}},wait={WAIT_SECONDS})",
        " same => n,Goto(soak-landing,s,1)",
        f"exten => {STRANDED_EXTENSION},1,Answer()",
        " same => n,Wait(600)",
    ]
    return "\n".join(lines) + _LANDING


def tools(url: str) -> str:
    """The file of HTTP tools: one that looks something up."""
    return f"""tools:
  - name: look_up
    description: Looks up the state of an order.
    url: {url}/orders/{{order}}
    method: GET
    parameters:
      type: object
      required: [order]
      properties:
        order: {{type: string, description: The number of the order.}}
"""


def _extension(name: str) -> str:
    return str(7100 + agent_ids().index(name))


_SAYS = (
    " caller=${CALLERID(num)} stasis=${STASISSTATUS} agent=${AGENT_STATUS} reason=${AGENT_REASON}"
)
_LANDING = f"""
[soak-landing]
exten => s,1,GotoIf($["${{STASISSTATUS}}" = "FAILED"]?human)
 same => n,GotoIf($["${{AGENT_STATUS}}" = "COMPLETED"]?bye)
 same => n,GotoIf($["${{AGENT_STATUS}}" = "TRANSFER"]?transfer)
 same => n(human),Log(NOTICE,landed=human{_SAYS})
 same => n,Answer()
 same => n,PlayTones(480)
 same => n,Wait(2)
 same => n,Hangup()
 same => n(transfer),Log(NOTICE,landed=transfer{_SAYS})
 same => n,PlayTones(620)
 same => n,Wait(2)
 same => n,Hangup()
 same => n(bye),Log(NOTICE,landed=bye{_SAYS})
 same => n,Hangup()
"""

_DIALOGUES: dict[Role, dict[str, Any]] = {
    Role.TALKER: {
        "first_message": "1.5",
        "turns": [{"say": "2"}, {"say": "3"}],
        "after_last": "start_again",
    },
    Role.CLOSER: {
        "first_message": "1.5",
        "turns": [{"say": "1.5"}, {"say": "1", "end_call": True}],
    },
    Role.TELLER: {"first_message": "1.5", "turns": [{"say": "8"}]},
    Role.SWITCHBOARD: {
        "first_message": "1.5",
        "turns": [
            {"say": "1", "tool": {"name": "transfer_call", "parameters": {"to": "200"}}},
        ],
    },
    Role.CONSULTER: {
        "first_message": "1.5",
        "turns": [
            {
                "say": "1",
                "tool": {
                    "name": "transfer_call",
                    "parameters": {"to": TARGET_NUMBER, "mode": "attended"},
                    "say_on_success": "1.5",
                    "say_on_error": "1",
                    "timeout_seconds": 30,
                },
            },
            {"say": "1"},
        ],
    },
    Role.KEYPAD: {
        "first_message": "1.5",
        "turns": [
            {"say": "1", "tool": {"name": "send_dtmf", "parameters": {"digits": "12#"}}},
            {"say": "1.5"},
        ],
    },
    Role.CLERK: {
        "first_message": "1.5",
        "turns": [
            {
                "say": "0.5",
                "tool": {
                    "name": "look_up",
                    "parameters": {"order": "A17"},
                    "say_on_success": "1.5",
                    "say_on_error": "0.5",
                },
            }
        ],
    },
    Role.DROPPER: {"first_message": "1.5", "turns": [{"say": "6"}]},
}
