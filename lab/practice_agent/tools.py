"""The tools that the agent uses: the client's, and ``end_call``. Pure."""

from __future__ import annotations

from lab.practice_agent import server_messages as messages
from lab.practice_agent.client_messages import ToolResult
from lab.practice_agent.dialogue import ToolCall
from lab.practice_agent.outbox import Outbox
from lab.practice_agent.record import ConversationRecord, ToolUse

END_CALL = "end_call"
SYSTEM_TOOL_TIMEOUT_S = 20.0


class ToolDesk:
    """Calls one tool at a time and waits for its result."""

    def __init__(self, record: ConversationRecord, outbox: Outbox) -> None:
        self._record = record
        self._outbox = outbox
        self._count = 0
        self._event_id = 0
        self._waiting: tuple[ToolCall, ToolUse] | None = None

    @property
    def deadline(self) -> float | None:
        """When `give_up` gives up; None while no result is awaited."""
        if self._waiting is None:
            return None
        tool, use = self._waiting
        return use.asked_at + tool.timeout_seconds

    def call(self, tool: ToolCall, event_id: int, now: float) -> str | None:
        """Call a client tool. Returns what to say when no result is expected, else None."""
        use = ToolUse(self._next_id(tool.name), tool.name, tool.parameters, asked_at=now)
        self._record.tools.append(use)
        self._event_id = event_id
        self._outbox.report("note", f"calls the tool {tool.name}", now)
        self._outbox.send(
            messages.agent_tool_request(
                tool.name,
                use.tool_call_id,
                "client",
                event_id,
                expects_response=tool.expects_response,
                timeout_seconds=tool.timeout_seconds,
            )
        )
        self._outbox.send(
            messages.client_tool_call(
                tool.name,
                use.tool_call_id,
                tool.parameters,
                event_id,
                expects_response=tool.expects_response,
            )
        )
        if not tool.expects_response:
            return tool.say_on_success
        self._waiting = tool, use
        return None

    def answered(self, result: ToolResult, now: float) -> str | None:
        """Take a result. Returns what to say, None when nobody waits for this result."""
        if self._waiting is None or self._waiting[1].tool_call_id != result.tool_call_id:
            self._outbox.report("note", "a tool result came that nobody waits for", now)
            return None
        tool, use = self._waiting
        use.answered_at = now
        use.result = result.result
        self._finish(use, is_error=result.is_error, now=now)
        return tool.say_on_error if result.is_error else tool.say_on_success

    def give_up(self, now: float) -> str | None:
        """Stop waiting when the time is up. Returns what to say then, otherwise None."""
        deadline = self.deadline
        if self._waiting is None or deadline is None or now < deadline:
            return None
        tool, use = self._waiting
        use.timed_out = True
        self._finish(use, is_error=True, now=now)
        return tool.say_on_error

    def end_call(self, event_id: int, now: float) -> None:
        """Announce the end of the call; the caller of this closes the socket."""
        tool_call_id = self._next_id(END_CALL)
        self._outbox.report("note", "ends the call", now)
        self._outbox.send(
            messages.agent_tool_request(
                END_CALL,
                tool_call_id,
                "system",
                event_id,
                expects_response=False,
                timeout_seconds=SYSTEM_TOOL_TIMEOUT_S,
            )
        )
        self._outbox.send(
            messages.agent_tool_response(END_CALL, tool_call_id, "system", event_id, is_error=False)
        )

    def _finish(self, use: ToolUse, *, is_error: bool, now: float) -> None:
        self._waiting = None
        use.is_error = is_error
        self._outbox.report("note", f"{use.name} {'failed' if is_error else 'is done'}", now)
        self._outbox.send(
            messages.agent_tool_response(
                use.name, use.tool_call_id, "client", self._event_id, is_error=is_error
            )
        )

    def _next_id(self, name: str) -> str:
        self._count += 1
        return f"{name}_{self._record.conversation_id}_{self._count}"
