"""What is said in the demonstration, by both sides."""

from __future__ import annotations

from dataclasses import dataclass

from lab.practice_agent import AgentBook, AgentProfile, Dialogue, ToolCall, Turn

AGENT_ID = "demo"


@dataclass(frozen=True, slots=True)
class Line:
    """One turn of the caller's."""

    text: str
    interrupts_after_s: float | None = None
    """Speak when the agent has been heard for so long; None waits until it has finished."""


CALLER = (
    Line("Hello. I would like an appointment for a check-up, please."),
    Line("Tuesday is perfect. Half past nine, please.", interrupts_after_s=2.6),
    Line("Yes, please. That would be very kind."),
)

AGENT = Dialogue(
    first_message="Good morning, this is the Lakeside dental practice. How can I help you?",
    turns=(
        Turn(
            say="Certainly. I can offer you Tuesday at half past nine, or Thursday at two in the "
            "afternoon. Which one suits you better?"
        ),
        Turn(
            say="Lovely, then it is Tuesday at half past nine. Would you like a reminder on the "
            "day before?"
        ),
        Turn(
            say="I have made a note of it. We look forward to seeing you. Goodbye!",
            tool=ToolCall(name="hang_up"),
        ),
    ),
    after_last="say_nothing",
)

_PROFILE = AgentProfile(dialogue=AGENT)


def agent_texts() -> list[str]:
    """All that the agent says."""
    return [AGENT.first_message, *(turn.say for turn in AGENT.turns)]


def caller_texts() -> list[str]:
    """All that the caller says."""
    return [line.text for line in CALLER]


def agents() -> AgentBook:
    """The practice agent's own agents, and the one of this scene."""
    book = AgentBook.built_in()
    return book.model_copy(update={"agents": {**book.agents, AGENT_ID: _PROFILE}})


def own_delay_s() -> float:
    """How long the agent itself takes from the end of the caller's speech to its answer.

    It waits until the caller has surely finished, then thinks.
    """
    return (_PROFILE.hearing.end_ms + _PROFILE.delivery.think_ms) / 1000
