from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.checks.conf_file import ConfFile, alternatives, parse_conf


def nothing(pattern: str) -> Sequence[tuple[str, str]]:
    return ()


def parsed(text: str) -> ConfFile:
    return parse_conf("x.conf", text, nothing)


def test_sections_and_entries_know_where_they_stand() -> None:
    conf = parsed("; a file\n[general]\nenabled = yes\n\n[voice] ; ours\nexten => _X.,1,Answer()\n")
    general, voice = conf.sections
    assert (general.name, general.where) == ("general", "x.conf:2")
    assert (voice.name, voice.where) == ("voice", "x.conf:5")
    (entry,) = general.entries
    assert (entry.key, entry.value, entry.where) == ("enabled", "yes", "x.conf:3")
    assert voice.value("exten") == "_X.,1,Answer()"


def test_names_are_looked_up_without_regard_to_case() -> None:
    conf = parsed("[General]\nBindAddr = 127.0.0.1\n")
    found = conf.first("general")
    assert found is not None
    assert found.value("bindaddr") == "127.0.0.1"
    assert found.value("bindport", "8088") == "8088"
    assert conf.first("none") is None


def test_the_last_entry_counts() -> None:
    (section,) = parsed("[a]\nx = 1\nx = 2\n").sections
    assert section.value("x") == "2"
    assert len(section.entries) == 2


@pytest.mark.parametrize("name", ["rtp.conf", "modules.conf"])
def test_the_first_entry_counts_where_asterisk_looks_for_it(name: str) -> None:
    text = {"y.conf": "x = 1\n"}
    conf = parse_conf(name, "[a]\n#include y.conf\nx = 2\n", lambda each: [(each, text[each])])
    assert conf.sections[0].value("x") == "1"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("x = 1 ; one", "1"),
        (r"x = a\;b ; c", "a;b"),
        ("x = 1 ;-- in between --; 2", "1  2"),
        ("x = 1 ;--- only a line", "1"),
        ("x=>1", "1"),
        ("x => 1", "1"),
        ("x += 1", "1"),
        ("x = a=b", "a=b"),
        ("x =", ""),
    ],
)
def test_values(line: str, value: str) -> None:
    (section,) = parsed(f"[a]\n{line}\n").sections
    (entry,) = section.entries
    assert (entry.key, entry.value) == ("x", value)


def test_a_comment_over_several_lines() -> None:
    conf = parsed("[a]\n;-- off\nx = 1\n[b]\n--;\ny = 2\n")
    (section,) = conf.sections
    assert [(e.key, e.line) for e in section.entries] == [("y", 6)]


def test_templates_are_inherited_and_are_nothing_by_themselves() -> None:
    conf = parsed(
        "[basics](!)\nallow = ulaw\nrtp_timeout = 30\n"
        "[more](!,basics)\ntos = ef\n"
        "[trunk](more)\nallow = alaw\n"
    )
    assert [s.name for s in conf.sections if s.is_template] == ["basics", "more"]
    trunk = conf.first("trunk")
    assert trunk is not None
    assert (trunk.value("allow"), trunk.value("rtp_timeout")) == ("alaw", "30")
    assert trunk.value("tos") == "ef"
    entry = trunk.get("rtp_timeout")
    assert entry is not None
    assert entry.where == "x.conf:3", "where it really stands"
    assert conf.first("basics") is None


def test_a_section_is_added_to() -> None:
    conf = parsed("[a]\nx = 1\n[b]\ny = 1\n[a](+)\nx = 2\n")
    assert [s.name for s in conf.sections] == ["a", "b"]
    assert conf.sections[0].value("x") == "2"


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("[c](+)", "x.conf:3 says [c](+), and there is no section c before it to add to."),
        ("[c](d)", "there is no section d before it to inherit from."),
        ("[c", "without a closing bracket."),
    ],
)
def test_a_head_that_makes_no_sense_ends_the_file(head: str, words: str) -> None:
    conf = parsed(f"[a]\nx = 1\n{head}\nx = 2\n[d]\n")
    assert [s.name for s in conf.sections] == ["a"]
    assert conf.sections[0].value("x") == "1"
    (sentence,) = conf.broken
    assert words in sentence


@pytest.mark.parametrize("text", ["password = s3cret\n[a]\nx = 1\n", "nonsense\n[a]\nx = 1\n"])
def test_what_stands_before_any_section_ends_the_file(text: str) -> None:
    conf = parsed(text)
    assert not conf.sections
    (sentence,) = conf.broken
    assert sentence.endswith("before any section. Asterisk takes nothing of x.conf then.")
    assert "s3cret" not in sentence


def test_an_include_of_what_is_not_there_ends_the_file() -> None:
    text = "[a]\nx = 1\n#tryinclude one.conf\n#include d/*.conf\nx = 2\n"
    conf = parse_conf("x.conf", text, lambda pattern: None)
    assert conf.sections[0].value("x") == "1"
    assert conf.broken == [
        "x.conf:4 says #include d/*.conf, and there is no such file; #tryinclude would let it be "
        "missing. Asterisk takes nothing of x.conf then."
    ]


def test_an_included_file_that_ends_early_leaves_the_rest_of_the_other() -> None:
    files = {"b.conf": "x = 1\n#include c.conf\nx = 2\n"}

    def read(pattern: str) -> Sequence[tuple[str, str]] | None:
        return [(pattern, files[pattern])] if pattern in files else None

    conf = parse_conf("a.conf", "[a]\n#include b.conf\ny = 3\n", read)
    assert [(e.key, e.value) for e in conf.sections[0].entries] == [("x", "1"), ("y", "3")]
    (sentence,) = conf.broken
    assert sentence.startswith("b.conf:2 says #include c.conf, and there is no such file")
    assert sentence.endswith("Asterisk reads no further there.")


def test_sections_of_one_name_stay_apart() -> None:
    conf = parsed("[trunk]\ntype = endpoint\n[trunk]\ntype = aor\n")
    assert [s.value("type") for s in conf.named("trunk")] == ["endpoint", "aor"]


@pytest.mark.parametrize(
    "line",
    ['#include "d/*.conf"', "#include <d/*.conf>", "#tryinclude d/*.conf", "#INCLUDE d/*.conf"],
)
def test_other_files_are_included(line: str) -> None:
    asked: list[str] = []

    def read(pattern: str) -> Sequence[tuple[str, str]]:
        asked.append(pattern)
        return [("d/1.conf", "x = 1\n"), ("d/2.conf", "[b]\ny = 2\n")]

    conf = parse_conf("x.conf", f"[a]\n{line}\nz = 3\n", read)
    assert asked == ["d/*.conf"]
    a, b = conf.sections
    assert [(e.key, e.where) for e in a.entries] == [("x", "d/1.conf:1")]
    assert [e.where for e in b.entries] == ["d/2.conf:2", "x.conf:3"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.conf", ["a.conf"]),
        ("d/{b,a}.conf", ["d/b.conf", "d/a.conf"]),
        ("{a,b{c,d}}{1,2}", ["a1", "a2", "bc1", "bc2", "bd1", "bd2"]),
        ("{a}", ["a"]),
        ("{a,}x", ["ax", "x"]),
        ("a{b,c", ["a{b,c"]),
        ("a}b,c", ["a}b,c"]),
    ],
)
def test_braces_stand_for_several_names(pattern: str, names: list[str]) -> None:
    assert alternatives(pattern) == names


def test_a_file_that_includes_itself_comes_to_an_end() -> None:
    text = "[a]\nx = 1\n#include x.conf\n"
    conf = parse_conf("x.conf", text, lambda pattern: [("x.conf", text)])
    assert len(conf.sections) == 11


def test_programs_are_not_run() -> None:
    assert parsed("#exec /bin/false\n[a]\n").sections[0].name == "a"


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    for section in parsed(text).sections:
        for entry in section.entries:
            assert 1 <= entry.line <= len(text.split("\n"))


def test_lines_end_where_asterisk_ends_them() -> None:
    conf = parsed("\ufeff[a]\r\nx = 1\x0by = 2\u2028[b]\r\nz = 3\n")
    (section,) = conf.sections
    assert [(e.key, e.value, e.line) for e in section.entries] == [
        ("x", "1\x0by = 2\u2028[b]", 2),
        ("z", "3", 3),
    ]
