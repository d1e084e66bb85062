from __future__ import annotations

import pytest

from ari_app.process.yaml_text import NotYaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1\n'a b': [x, {c: d}]\n", {"a": 1, "a b": ["x", {"c": "d"}]}),
        ("- {a: 1}\n- {a: 2}\n", [{"a": 1}, {"a": 2}]),
        # One is a number, and one is a text.
        ("1: a\n'1': b\n", {1: "a", "1": "b"}),
        # What is merged gives way to what stands there.
        (
            "x: &x {a: 1, b: 2}\ny: &y {<<: *x, a: 3}\nz: {<<: *y, b: 4}\n",
            {"x": {"a": 1, "b": 2}, "y": {"a": 3, "b": 2}, "z": {"a": 3, "b": 4}},
        ),
    ],
)
def test_what_is_read(text: str, value: object) -> None:
    assert read_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "is not YAML at line 1"),
        ("a: 1\n\tb: 2", "is not YAML at line 2"),
        ("\0", "is not YAML"),
        ("a: 2026-02-30", "is not YAML"),
        ("[" * 3000, "is not YAML"),
        ("!!python/name:os.system", "is not YAML at line 1"),
        ("a: hunter2\nb:\n  c: 1\na: hunter3", "has a name twice, at line 4"),
        ("- {name: a, key: b, name: c}", "has a name twice, at line 1"),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    with pytest.raises(NotYaml) as error:
        read_yaml(text)
    assert str(error.value) == problem
