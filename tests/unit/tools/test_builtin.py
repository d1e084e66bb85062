from __future__ import annotations

import pytest

from ari_app.tools.built_in import BUILT_IN, ClientTool
from ari_app.tools.tool import ParameterSchema


def test_the_tools_of_the_line() -> None:
    assert list(BUILT_IN) == [
        "transfer_call",
        "cancel_transfer",
        "hang_up",
        "send_dtmf",
        "hold",
        "record_call",
        "set_variable",
    ]


@pytest.mark.parametrize("tool", BUILT_IN.values(), ids=lambda tool: tool.name)
def test_each_has_a_schema_indeed(tool: ClientTool) -> None:
    """Which is not looked at when the service starts."""
    ParameterSchema(tool.parameters.schema)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("transfer_call", {"to": "support"}),
        ("transfer_call", {"to": "+493023125001", "mode": "attended"}),
        ("transfer_call", {"to": "6001@office", "mode": "blind"}),
        ("hang_up", {}),
        ("hang_up", {"reason": "models like to give reasons"}),
        ("send_dtmf", {"digits": "12w#*aD"}),
        ("hold", {}),
        ("set_variable", {"name": "CUSTOMER_MOOD", "value": "glad, äöü"}),
        ("record_call", {"on": False}),
        ("set_variable", {"name": "_x", "value": ""}),
    ],
)
def test_calls_that_fit(name: str, parameters: dict[str, object]) -> None:
    assert BUILT_IN[name].refusal(parameters) is None


@pytest.mark.parametrize(
    ("name", "parameters", "sentence"),
    [
        ("transfer_call", {}, "The call was not transferred: 'to' is missing."),
        ("transfer_call", {"to": 17}, "The call was not transferred: 'to' must be a text."),
        ("transfer_call", {"to": "x" * 201}, "The call was not transferred: 'to' is beyond its"),
        (
            "transfer_call",
            {"to": "200", "mode": "warm"},
            "The call was not transferred: 'mode' must be one of blind, attended.",
        ),
        ("send_dtmf", {"digits": "12f"}, "No keys were pressed: 'digits' does not fit"),
        ("send_dtmf", {"digits": ""}, "No keys were pressed: 'digits' does not fit"),
        ("record_call", {"on": "no"}, "The recording was not changed: 'on' must be"),
        ("set_variable", {"name": "A(1)", "value": "x"}, "The variable was not set: 'name' does"),
        ("set_variable", {"name": "A", "value": "x\ny"}, "The variable was not set: 'value' does"),
        ("set_variable", {"name": "A"}, "The variable was not set: 'value' is missing."),
    ],
)
def test_other_calls_are_refused_with_a_sentence(
    name: str, parameters: dict[str, object], sentence: str
) -> None:
    refusal = BUILT_IN[name].refusal(parameters)
    assert refusal is not None
    assert refusal.startswith(sentence)
    assert refusal.endswith(".")
    assert not refusal.endswith("..")


@pytest.mark.parametrize("tool", BUILT_IN.values(), ids=lambda tool: tool.name)
def test_elevenlabs_takes_every_tool(tool: ClientTool) -> None:
    # Here, where alone it is needed: each worker of the tests reads this file, for half a second.
    from elevenlabs.types import ClientToolConfigInput

    form = tool.for_elevenlabs()
    config = ClientToolConfigInput.model_validate(form)
    assert (config.name, config.expects_response) == (tool.name, True)
    assert config.parameters is not None
    # Their model lets unknown fields pass; there are none.
    assert set(config.parameters.model_extra or {}) == set()
    for parameter in (config.parameters.properties or {}).values():
        assert set(parameter.model_extra or {}) == set()
        assert parameter.description
    assert set(config.parameters.required or ()) <= set(config.parameters.properties or {})
    assert 1 <= (config.response_timeout_secs or 0) <= 120
