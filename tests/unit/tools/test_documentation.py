from __future__ import annotations

import json
import re
from pathlib import Path

from ari_app.tools.built_in import BUILT_IN, markdown
from ari_app.tools.http_config import HttpTool, parse_http_tools

TEXT = (Path(__file__).parents[3] / "docs" / "agent-tools.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def test_the_tools_are_documented_as_the_code_has_them() -> None:
    between = re.search(r"<!-- tools: begin -->\n(.*)\n<!-- tools: end -->", TEXT, re.DOTALL)
    assert between is not None
    assert between[1] == markdown()
    assert [json.loads(block)["name"] for block in blocks("json")] == list(BUILT_IN)


def test_the_example_of_http_tools_works() -> None:
    (example,) = blocks("yaml")
    tools = parse_http_tools(example, {"CRM_TOKEN": "s3cret"})
    assert [tool.name for tool in tools] == ["look_up_order", "call_back"]
    assert tools[0].headers["Authorization"] == "Bearer s3cret"


def test_every_field_of_an_http_tool_is_documented_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (\S+) \|", TEXT, re.MULTILINE))
    for name, field in HttpTool.model_fields.items():
        if field.is_required():
            assert rows[name] == "-"
        elif field.default_factory is None:
            assert rows[name].strip("`") == str(field.default)
        else:
            assert rows[name] == "none"
