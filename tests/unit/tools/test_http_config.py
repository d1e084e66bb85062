from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ari_app.errors import ConfigError
from ari_app.tools.http_config import (
    HttpTool,
    load_http_tools,
    parse_http_tools,
    process_environment,
)

MINIMAL = {"name": "ask", "description": "Asks.", "url": "https://crm.example/ask"}
ORDER = """
tools:
  - name: look_up_order
    description: Looks up an order.
    url: https://crm.example/orders/{order_id}?full=1
    method: GET
    headers:
      Authorization: Bearer ${CRM_TOKEN}
      X-Two: ${A}-${CRM_TOKEN} $5
    timeout_seconds: 4
    max_result_bytes: 2048
    parameters:
      type: object
      required: [order_id]
      properties:
        order_id: {type: string}
        page: {type: integer}
    from_call:
      phone: caller_number
  - name: note
    description: Notes something.
    url: https://crm.example/notes
"""


def of(**changes: object) -> tuple[HttpTool, ...]:
    return parse_http_tools(yaml.safe_dump({"tools": [{**MINIMAL, **changes}]}), {})


def test_a_file_of_tools() -> None:
    order, note = parse_http_tools(ORDER, {"CRM_TOKEN": "s3cret", "A": "a", "B": "unused"})
    assert order.headers == {"Authorization": "Bearer s3cret", "X-Two": "a-s3cret $5"}
    assert (order.method, order.timeout_seconds, order.max_result_bytes) == ("GET", 4, 2048)
    assert order.in_path == ("order_id",)
    assert order.in_query
    assert order.from_call == {"phone": "caller_number"}
    assert "s3cret" not in repr(order)
    assert (note.method, note.timeout_seconds, note.max_result_bytes) == ("POST", 10, 16384)
    assert not note.in_query
    assert note.parameters == {"type": "object"}


def test_no_tools() -> None:
    assert parse_http_tools("tools: []", {}) == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "it must have a list named tools."),
        ("- a", "it must have a list named tools."),
        ("tools: [", "it is not YAML at line 1."),
        ("\0", "it is not YAML."),
        ("tools: []\ntools: []", "it has a name twice, at line 2."),
        ("tools: [{name: 2026-02-30}]", "it is not YAML."),
        ("[" * 3000, "it is not YAML."),
        ("{}", "tools: is missing."),
        ("tools: 7", "tools: must be a list."),
        ("tools: [7]", "tool 1: Input should be a valid dictionary"),
        ("tools: [{name: a}]", "a.description: is missing. a.url: is missing."),
        ("tools: []\nmore: 1", "more: is not known here."),
    ],
)
def test_files_that_cannot_be_used(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_http_tools(text, {})
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "two words"}, "two words.name: does not have the form"),
        ({"name": "hang_up"}, "hang_up: hang_up is a tool of the line; choose another name."),
        ({"color": "red"}, "ask.color: is not known here."),
        ({"method": "TRACE"}, "ask.method: must be GET, POST"),
        ({"timeout_seconds": 0}, "ask.timeout_seconds: must be more than 0."),
        ({"url": "crm.example/x"}, "ask.url: must be a URL such as"),
        ({"url": "ftp://crm.example/x"}, "ask.url: must be a URL such as"),
        ({"url": "https://crm..example/x"}, "ask.url: must be a URL such as"),
        ({"url": "https://crm\\example/x"}, "ask.url: must be a URL such as"),
        ({"url": "https://[::1/x"}, "ask.url: must be a URL such as"),
        ({"url": "https://crm.example:0/x"}, "ask.url: must be a URL such as"),
        ({"url": "https://crm.example:99999/x"}, "ask.url: must be a URL such as"),
        ({"url": "https://crm.example/x\r\ny"}, "ask.url: must be a URL such as"),
        ({"url": "https://crm.example/a b"}, "ask.url: must be a URL such as"),
        ({"url": "https://crm.example/ä"}, "ask.url: must be a URL such as"),
        ({"url": "https://u:hunter2@crm.example/"}, "ask.url: must not carry a user name"),
        ({"url": "https://crm.example/#a"}, "ask.url: must not carry a fragment."),
        ({"url": "https://{host}/x"}, "ask.url: may have {parameters} in its path only."),
        ({"url": "https://crm.example/?q={q}"}, "ask.url: may have {parameters} in its path"),
        ({"url": "https://crm.example/{a-b}"}, "has braces in its path that are not {parameter}."),
        ({"url": "https://crm.example/{id}"}, "ask: {id} in the url must be a required parameter."),
        ({"parameters": {"type": "string"}}, "ask: the parameters' schema must have the type"),
        ({"parameters": {"type": "object", "properties": 7}}, "no JSON Schema at $.properties."),
        ({"from_call": {"a": "password"}}, "ask.from_call.a: must be session_id"),
        (
            {
                "from_call": {"a": "call_id"},
                "parameters": {"type": "object", "properties": {"a": {}}},
            },
            "ask: a stands in parameters and in from_call.",
        ),
        ({"headers": {"Host": "other"}}, "ask: the header 'Host' cannot be set."),
        ({"headers": {"a b": "c"}}, "ask: the header 'a b' cannot be set."),
        ({"headers": {"A": "b\r\nC: d"}}, "the header 'A' has characters that no header can have."),
        ({"headers": {"A": "ä"}}, "the header 'A' has characters that no header can have."),
        ({"headers": {"A": 7}}, "ask.headers.A: must be a text."),
        ({"headers": {"A": "${NOT_SET}"}}, "ask: the header A needs the variable NOT_SET, which"),
        ({"headers": {"A": "${X:-y}"}}, "ask: the header A may name variables as ${NAME} only"),
        ({"headers": {"A": "${"}}, "ask: the header A may name variables as ${NAME} only"),
        ({"headers": [1]}, "ask.headers: must be names with values."),
    ],
)
def test_tools_that_cannot_be_used(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        of(**changes)
    assert sentence in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_variable_is_replaced_once_and_cannot_break_out_of_its_header() -> None:
    text = "tools: [{name: a, description: b, url: 'http://h/', headers: {A: '${X}'}}]"
    assert parse_http_tools(text, {"X": "${Y}"})[0].headers == {"A": "${Y}"}
    with pytest.raises(ConfigError, match="characters that no header can have") as refused:
        parse_http_tools(text, {"X": "s3cret\nB: c"})
    assert "s3cret" not in str(refused.value)


def test_a_variable_that_is_still_to_be_filled_in_is_told_at_the_start() -> None:
    """Else the tool's service refuses the agent in the middle of a call."""
    text = "tools: [{name: a, description: b, url: 'http://h/', headers: {A: 'Bearer ${X}'}}]"
    with pytest.raises(ConfigError, match="the header A needs the variable X, which is empty"):
        parse_http_tools(text, {"X": ""}, ".env")


def test_names_are_unique() -> None:
    with pytest.raises(ConfigError, match="two tools are named ask"):
        parse_http_tools(yaml.safe_dump({"tools": [MINIMAL, MINIMAL]}), {})


def test_a_path_may_have_a_place_for_what_the_call_gives() -> None:
    (tool,) = of(url="https://crm.example/{who}", from_call={"who": "caller_number"})
    assert tool.in_path == ("who",)


def test_the_file_is_read_and_named_when_it_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "tools.yaml"
    with pytest.raises(ConfigError, match=r"TOOLS_FILE .*tools.yaml cannot be read: No such file"):
        load_http_tools(path, {})
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read: it is not UTF-8"):
        load_http_tools(path, {})
    path.write_text("tools: 1")
    with pytest.raises(ConfigError, match=r"TOOLS_FILE .*tools.yaml: tools: must be a list"):
        load_http_tools(path, {})
    path.write_text(yaml.safe_dump({"tools": [MINIMAL]}))
    assert [tool.name for tool in load_http_tools(path, {})] == ["ask"]


def test_variables_come_from_the_environment_and_from_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file = tmp_path / "env"
    env_file.write_text("TOOL_A=file\nTOOL_B=file\nTOOL_C\n")
    monkeypatch.setenv("TOOL_A", "environment")
    monkeypatch.delenv("TOOL_B", raising=False)
    known = process_environment(str(env_file))
    assert (known["TOOL_A"], known["TOOL_B"]) == ("environment", "file")
    assert "TOOL_C" not in known
    assert "TOOL_B" not in process_environment(None)


yaml_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(list(HttpTool.model_fields)), yaml_values))
def test_whatever_stands_in_a_tool_only_a_config_error_comes_out(tool: dict[str, Any]) -> None:
    try:
        of(**tool)
    except ConfigError as error:
        assert str(error).endswith(".")
