"""Regular expressions that the operator chooses, for text that others choose. Pure.

Python's own engine tries alternatives one after the other: with some patterns a text of 30
characters keeps it busy for seconds, and every call with it. So these are matched by the engine
that pydantic brings along (Rust's `regex`), whose time grows with the text's length and no
faster; it knows neither look-around nor back references. They are read as in JSON Schema and
ECMA-262: `$` is the very end, and `\\d` and `\\w` are ASCII.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import StringConstraints, TypeAdapter, ValidationError
from pydantic_core import SchemaError

# A pair with a backslash, or a class; what is in neither means the same to both.
_TOKEN: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_IN_CLASS: Final = re.compile(r"\\.|\[|&&|~~|--", re.DOTALL)
_ASCII: Final = {
    r"\d": "[0-9]",
    r"\D": "[^0-9]",
    r"\w": "[0-9A-Za-z_]",
    r"\W": "[^0-9A-Za-z_]",
    r"\Z": r"\z",
}
_MAX_LENGTH: Final = 2000
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class LinearPattern:
    """A regular expression whose matching never takes long.

    Args:
        text: The expression.

    Raises:
        ValueError: It cannot be used; a clause that says why.
    """

    def __init__(self, text: str) -> None:
        self.text: Final = text
        if len(text) > _MAX_LENGTH:
            raise ValueError(f"it is longer than {_MAX_LENGTH} characters")
        if _SURROGATE.search(text):
            raise ValueError("it has half a character in it (a surrogate)")
        expression = _TOKEN.sub(_spelled, text)
        self._found = _matcher(expression)
        self._whole = _matcher(f"^(?:{expression})$")

    def search(self, text: str) -> bool:
        """Return whether it is found anywhere in `text`."""
        return _fits(self._found, text)

    def fullmatch(self, text: str) -> bool:
        """Return whether it matches the whole of `text`."""
        return _fits(self._whole, text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LinearPattern) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"LinearPattern({self.text!r})"


def _spelled(found: re.Match[str]) -> str:
    """Return a token as Rust's engine spells it: there, classes may stand in classes."""
    token = found[0]
    if not token.startswith("["):
        return _ASCII.get(token, token)
    return "[" + _IN_CLASS.sub(_in_class, token[1:-1]) + "]"


def _in_class(found: re.Match[str]) -> str:
    token = found[0]
    if token.startswith("\\"):
        return _ASCII.get(token, token)
    return "".join(f"\\{character}" for character in token)


def _matcher(expression: str) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(Annotated[str, StringConstraints(pattern=expression, strict=True)])
    except SchemaError as error:
        raise ValueError(_why(str(error))) from None


def _why(told: str) -> str:
    if "exceeds size limit" in told:
        return "it repeats too much; a shorter {n,m} does"
    last = told.strip().rpartition("error: ")[2].splitlines()[0]
    if "look-around" in last or "backreferences" in last:
        return "look-around and back references are not known here"
    return last


def _fits(matcher: TypeAdapter[Any], text: str) -> bool:
    try:
        matcher.validate_python(text)
    except ValidationError:
        return False
    return True
