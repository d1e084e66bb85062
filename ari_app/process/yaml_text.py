"""Reads YAML that people have written."""

from __future__ import annotations

import functools
from typing import Any


class NotYaml(ValueError):
    """A text that cannot be used; what is wrong with it is the end of a sentence, and repeats
    nothing of it, for that may be a secret."""


def read_yaml(text: str) -> Any:
    """Read plain YAML.

    Raises:
        NotYaml: It is none, or has a name twice in one place. Of these YAML itself takes the last
            without a word: the second list of tools, the key that follows where a dash is missing.
    """
    import yaml  # without a file of it, nobody needs it

    try:
        return yaml.load(text, _loader())
    except NotYaml:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f" at line {mark.line + 1}"
        raise NotYaml(f"is not YAML{where}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        # ValueError: a date that cannot be.
        raise NotYaml("is not YAML") from None


@functools.cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            names = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            seen: set[tuple[str, str]] = set()
            for name in names:
                if (name.tag, name.value) in seen:
                    raise NotYaml(f"has a name twice, at line {name.start_mark.line + 1}")
                seen.add((name.tag, name.value))
            return node

    return Loader
