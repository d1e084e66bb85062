from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.line.asterisk.ari.errors import AriMalformed
from ari_app.line.asterisk.ari.models import Variable
from ari_app.line.asterisk.ari.operation import Operation
from lab.asterisk.ari_description import operations

PLAY = Operation[None]("POST", "/channels/{channelId}/play/{playbackId}", parameters=("media",))


def test_ids_fill_the_path_in_order_and_are_quoted() -> None:
    assert PLAY.placeholders == ("channelId", "playbackId")
    assert PLAY.fill_path(["1.2", "a/b?c+d ü%"]) == "/channels/1.2/play/a%2Fb%3Fc%2Bd%20%C3%BC%25"


SEGMENTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(SEGMENTS.filter(lambda text: text not in (".", "..")))
def test_an_id_stays_one_segment(channel_id: str) -> None:
    path = PLAY.fill_path([channel_id, "p"])
    assert path.count("/") == 4
    assert path.isascii()
    assert not set("?#+ ") & set(path)


@pytest.mark.parametrize("ids", [[], ["1"], ["1", "2", "3"], ["", "2"], [".", "2"], ["..", "2"]])
def test_ids_must_fit_the_path(ids: list[str]) -> None:
    with pytest.raises(ValueError, match="/channels/"):
        PLAY.fill_path(ids)


def test_only_declared_parameters_are_sent_and_none_is_left_out() -> None:
    assert PLAY.select({"media": None}) == {}
    assert PLAY.select({"media": "sound:hello"}) == {"media": "sound:hello"}
    with pytest.raises(ValueError, match="volume"):
        PLAY.select({"volume": 3})


def test_answers() -> None:
    get = Operation[Variable]("GET", "/x", Variable)
    assert get.read(b'{"value":"1","later":true}') == Variable(value="1")
    assert PLAY.read(b"whatever") is None
    with pytest.raises(AriMalformed, match="GET /x: the answer does not fit: value") as caught:
        get.read(b'{"value":["12025550123"]}')
    assert "12025550123" not in str(caught.value)
    with pytest.raises(AriMalformed, match="JSON"):
        get.read(b"<html>")


def test_what_may_be_repeated() -> None:
    by_name = {(each.method, each.path): each.repeatable for each in operations()}
    assert all(
        repeatable for (method, _), repeatable in by_name.items() if method in ("GET", "DELETE")
    )
    assert by_name["POST", "/channels/{channelId}/answer"]
    assert not by_name["POST", "/channels/{channelId}"]
    assert not by_name["POST", "/channels/externalMedia"]
    assert not by_name["POST", "/channels/{channelId}/dtmf"]
    assert not by_name["POST", "/channels/{channelId}/continue"]


@pytest.mark.parametrize(
    ("returns", "answer"),
    [(Variable, '{"value":"%019d"}'), (tuple[Variable, ...], '[{"value":"m%018d"}]')],
)
def test_no_answer_is_kept(returns: object, answer: str) -> None:
    get = Operation[object]("GET", "/x", returns)
    before = sys.getallocatedblocks()
    for number in range(3000):
        get.read((answer % number).encode())
    assert sys.getallocatedblocks() - before < 1000
