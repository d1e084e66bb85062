"""Server messages about tools: ours, the agent's own, and MCP's."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ari_app.elevenlabs.wire import OptionalInt, Part, ServerMessage


class ClientToolCall(ServerMessage):
    """The agent wants one of our tools."""

    wire_type = "client_tool_call"
    payload_key = "client_tool_call"

    tool_name: str
    tool_call_id: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    event_id: OptionalInt = None
    expects_response: bool = True


class AgentToolRequest(ServerMessage):
    """A tool is about to run on the server's side."""

    wire_type = "agent_tool_request"
    payload_key = "agent_tool_request"

    tool_name: str
    tool_call_id: str
    tool_type: str | None = None
    event_id: OptionalInt = None
    expects_response: bool | None = None
    disable_interruptions: bool | None = None
    response_timeout_secs: float | None = None
    execution_mode: str | None = None


class AgentToolResponse(ServerMessage):
    """A tool has run, on either side. `status`: success, error, blocked or skipped."""

    wire_type = "agent_tool_response"
    payload_key = "agent_tool_response"

    tool_name: str
    tool_call_id: str
    tool_type: str | None = None
    is_error: bool = False
    event_id: OptionalInt = None
    is_called: bool | None = None
    is_blocked: bool | None = None
    status: str | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the tool did its work; servers without `status` only say `is_error`."""
        return self.status == "success" if self.status else not self.is_error


class AgentToolResponseFullPayload(AgentToolResponse):
    """The same with the tool's result."""

    wire_type = "agent_tool_response_full_payload"
    payload_key = "agent_tool_response_full_payload"

    full_tool_result: str | None = None
    truncated: bool | None = None


class McpToolCall(ServerMessage):
    """An MCP tool: loading, awaiting_approval, success or failure."""

    wire_type = "mcp_tool_call"
    payload_key = "mcp_tool_call"

    service_id: str
    tool_call_id: str
    tool_name: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    state: str | None = None
    approval_timeout_secs: float = 300.0
    result: tuple[Any, ...] = ()
    error_message: str | None = None
    event_id: OptionalInt = None


class McpIntegration(Part):
    """One MCP server of the agent."""

    integration_id: str | None = None
    integration_type: str | None = None
    is_connected: bool | None = None
    tool_count: OptionalInt = None


class McpConnectionStatus(ServerMessage):
    """Which MCP servers are there."""

    wire_type = "mcp_connection_status"
    payload_key = "mcp_connection_status"

    integrations: tuple[McpIntegration, ...] = ()
