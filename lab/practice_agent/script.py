"""Which turn of a dialogue comes next, as steps to carry out. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lab.practice_agent.dialogue import (
    Dialogue,
    ToolCall,
    Turn,
    Variable,
    Variables,
    fill,
    fill_json,
)


@dataclass(frozen=True, slots=True)
class Say:
    """Speak a text."""

    text: str


@dataclass(frozen=True, slots=True)
class CallTool:
    """Ask the client to run a tool."""

    tool: ToolCall


@dataclass(frozen=True, slots=True)
class EndCall:
    """End the conversation as the ``end_call`` system tool does."""


Step = Say | CallTool | EndCall


class Script:
    """Walks through a dialogue.

    ``variables`` go over the dialogue's own defaults.
    """

    def __init__(self, dialogue: Dialogue, variables: Variables) -> None:
        self._dialogue = dialogue
        self._variables: dict[str, Variable] = {**dialogue.variables, **variables}
        self._position = 0
        self._position_before = 0

    def set(self, name: str, value: Variable) -> None:
        """Give a variable a value from now on."""
        self._variables[name] = value

    def fill(self, text: str) -> str:
        """Return ``text`` with the variables' values in it."""
        return fill(text, self._variables)

    def greeting(self, first_message: str | None = None) -> list[Step]:
        """Return the opening; ``first_message`` goes before the dialogue's own."""
        text = self._dialogue.first_message if first_message is None else first_message
        return [Say(self.fill(text))] if text else []

    def answer(self, heard_seconds: float | None) -> list[Step]:
        """Return the answer to a caller's turn.

        ``heard_seconds`` is None for text and keys, which are always long enough.
        """
        self._position_before = self._position
        turn = self._next_turn()
        if turn is None:
            return []
        if heard_seconds is not None and heard_seconds < turn.when_heard_seconds:
            return [Say(self.fill(self._dialogue.when_too_short))]
        self._position += 1
        return self._steps(turn)

    def take_back(self) -> None:
        """Forget the last answer: the caller went on speaking before it was given."""
        self._position = self._position_before

    def _next_turn(self) -> Turn | None:
        turns = self._dialogue.turns
        if not turns:
            return None
        if self._position < len(turns):
            return turns[self._position]
        match self._dialogue.after_last:
            case "repeat_last":
                return turns[-1]
            case "start_again":
                return turns[self._position % len(turns)]
            case "end_call":
                return Turn(end_call=True)
            case "say_nothing":  # pragma: no branch
                return None

    def _steps(self, turn: Turn) -> list[Step]:
        steps: list[Step] = []
        if turn.say:
            steps.append(Say(self.fill(turn.say)))
        if turn.tool:
            parameters = {
                key: fill_json(value, self._variables)
                for key, value in turn.tool.parameters.items()
            }
            steps.append(CallTool(turn.tool.model_copy(update={"parameters": parameters})))
        if turn.end_call:
            steps.append(EndCall())
        return steps
