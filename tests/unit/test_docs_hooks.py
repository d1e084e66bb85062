"""What the site's hooks make of a page."""

from __future__ import annotations

from scripts.docs_hooks import indent_items


def test_what_belongs_to_a_numbered_item_is_indented_by_four() -> None:
    page = "1. One:\n\n   ```\n   a\n    b\n   ```\n2. Two\n   goes on\n"
    assert indent_items(page) == "1. One:\n\n    ```\n    a\n     b\n    ```\n2. Two\n    goes on\n"


def test_nothing_else_is_touched() -> None:
    page = "* One\n  goes on\n\n```\n   code\n```\n\n1. Two\n\nText.\n\n    code\n"
    assert indent_items(page) == page
