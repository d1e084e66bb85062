"""Reads the file that names the HTTP tools. Everything that can be wrong is found at start."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ari_app.errors import ConfigError, in_words
from ari_app.process.addresses import OWN_HEADERS, usable_url
from ari_app.process.files import why_unreadable
from ari_app.process.loop import compute
from ari_app.process.yaml_text import NotYaml, read_yaml
from ari_app.tools.built_in import BUILT_IN
from ari_app.tools.secrets import hide_secrets, may_hold_secrets
from ari_app.tools.tool import ParameterSchema

_PLACE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

CallFact = Literal[
    "session_id", "call_id", "conversation_id", "agent_id", "caller_number", "called_number"
]


def _tool_url(value: str) -> str:
    parts = usable_url(value)
    if parts is None or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be a URL such as https://crm.example/orders/{order_id}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not carry a user name or password; use headers")
    if parts.fragment:
        raise ValueError("must not carry a fragment")
    if set("{}") & set(parts.scheme + parts.netloc + parts.query):
        raise ValueError("may have {parameters} in its path only")
    if set("{}") & set(_PLACE.sub("", parts.path)):
        raise ValueError("has braces in its path that are not {parameter}")
    return value


class HttpTool(BaseModel):
    """One tool: a request that is made for the agent.

    Attributes:
        name, description: As the agent knows the tool.
        url: Where to. `{name}` in its path stands for a parameter.
        method: GET and DELETE carry the other parameters in the query, the rest in a JSON body.
        headers: With `${NAME}` already replaced; secret.
        timeout_seconds: For the whole request.
        max_result_bytes: The longest answer.
        parameters: JSON Schema of what the agent gives.
        from_call: Parameters that the call itself gives and the agent cannot choose.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True
    )

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str = Field(min_length=1, max_length=2000)
    url: Annotated[str, AfterValidator(_tool_url)]
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    timeout_seconds: float = Field(default=10, gt=0, le=120)
    max_result_bytes: int = Field(default=16_384, ge=1, le=1_048_576)
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object"})
    from_call: dict[str, CallFact] = Field(default_factory=dict)

    @property
    def in_path(self) -> tuple[str, ...]:
        """The parameters that the path has places for."""
        return tuple(_PLACE.findall(urlsplit(self.url).path))

    async def without_secrets(self, text: str) -> str:
        """Return a server's words without what stands in the headers that were sent to it."""
        if not may_hold_secrets(text, self.headers.values()):
            return text
        # Calls are served meanwhile.
        return await compute(hide_secrets, text, self.headers.values())

    @property
    def in_query(self) -> bool:
        """Whether the other parameters go into the query rather than a body."""
        return self.method in ("GET", "DELETE")

    @model_validator(mode="after")
    def _consistent(self) -> HttpTool:
        if self.name in BUILT_IN:
            raise ValueError(f"{self.name} is a tool of the line; choose another name")
        schema = ParameterSchema(self.parameters)
        if twice := sorted(schema.names & set(self.from_call)):
            raise ValueError(f"{twice[0]} stands in parameters and in from_call")
        required = set(self.parameters.get("required", ())) | set(self.from_call)
        for place in self.in_path:
            if place not in required:
                raise ValueError(f"{{{place}}} in the url must be a required parameter")
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name) or name.lower() in OWN_HEADERS:
                raise ValueError(f"the header {name[:40]!r} cannot be set")
            if _CONTROL.search(value) or not value.isascii():
                raise ValueError(f"the header {name[:40]!r} has characters that no header can have")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    tools: list[HttpTool] = Field(max_length=200)


def process_environment(env_file: str | None = ".env") -> Mapping[str, str]:
    """Return the variables that headers may name: the environment, and those of `env_file` beside
    it."""
    from_file = dotenv_values(env_file, encoding="utf-8-sig") if env_file else {}
    return {name: value for name, value in from_file.items() if value is not None} | os.environ


def load_http_tools(
    path: Path, environment: Mapping[str, str], env_file: str | None = None
) -> tuple[HttpTool, ...]:
    """Read a file of tools.

    Args:
        path: The file.
        environment: The variables that headers may name.
        env_file: The file that some of them came from, to name it where one is missing.

    Raises:
        ConfigError: It cannot be read, or something in it does not fit; one sentence for each
            problem, which never repeats a header's value.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"TOOLS_FILE {path} cannot be read: {why_unreadable(error)}.") from None
    try:
        return parse_http_tools(text, environment, env_file)
    except ConfigError as error:
        raise ConfigError(f"TOOLS_FILE {path}: {error}") from None


def parse_http_tools(
    text: str, environment: Mapping[str, str], env_file: str | None = None
) -> tuple[HttpTool, ...]:
    """Read the text of such a file. Pure.

    Raises:
        ConfigError: As above.
    """
    try:
        data = read_yaml(text)
    except NotYaml as error:
        raise ConfigError(f"it {error}.") from None
    if not isinstance(data, dict):
        raise ConfigError("it must have a list named tools.")
    try:
        tools = _File.model_validate(_with_variables(data, environment, env_file)).tools
    except ValidationError as error:
        raise ConfigError(" ".join(_sentence(item, data) for item in error.errors())) from None
    names = [tool.name for tool in tools]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"two tools are named {twice}.")
    return tuple(tools)


def _with_variables(
    data: dict[Any, Any], environment: Mapping[str, str], env_file: str | None
) -> dict[Any, Any]:
    tools = data.get("tools")
    if not isinstance(tools, list):
        return data
    return {**data, "tools": [_resolved(tool, environment, env_file) for tool in tools]}


def _resolved(tool: Any, environment: Mapping[str, str], env_file: str | None) -> Any:
    match tool:
        case {"headers": dict(headers), **others}:
            resolved = {
                name: _value(str(others.get("name")), str(name), value, environment, env_file)
                for name, value in headers.items()
            }
            return {**others, "headers": resolved}
        case _:
            return tool


def _value(
    tool: str, header: str, value: object, environment: Mapping[str, str], env_file: str | None
) -> object:
    if not isinstance(value, str):
        return value
    if "${" in _VARIABLE.sub("", value):
        raise ConfigError(
            f"{tool}: the header {header} may name variables as ${{NAME}} only, without anything "
            "else between the braces."
        )

    def replace(found: re.Match[str]) -> str:
        wanted = environment.get(found[1])
        if wanted:
            return wanted
        if wanted is not None:
            # As .env.example has what is still to be filled in.
            missing = "is empty"
        elif env_file is None:
            missing = "the environment does not have"
        else:
            missing = f"neither the environment nor {env_file} has"
        raise ConfigError(
            f"{tool}: the header {header} needs the variable {found[1]}, which {missing}."
        )

    return _VARIABLE.sub(replace, value)


def _sentence(item: Any, data: Mapping[str, Any]) -> str:
    location = list(item["loc"])
    match location:
        case ["tools", int(index), *rest]:
            location = [_tool_name(data["tools"][index], index), *rest]
        case _:
            pass
    return f"{'.'.join(str(part) for part in location)}: {in_words(item)}."


def _tool_name(tool: object, index: int) -> str:
    match tool:
        case {"name": str(name)}:
            return name
        case _:
            return f"tool {index + 1}"
