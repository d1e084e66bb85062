"""A request of ARI: where it goes, what may be sent with it, and what its answer holds. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ari_app.line.asterisk.ari.errors import AriMalformed
from ari_app.line.asterisk.ari.events import describe

T = TypeVar("T")
Method = Literal["GET", "POST", "PUT", "DELETE"]
Parameter = str | int | bool | Sequence[str] | Mapping[str, Any] | None
"""A parameter's value; None leaves it out."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Operation(Generic[T]):
    """A request of ARI.

    Attributes:
        method: The HTTP method.
        path: Below `/ari`, with the placeholders as Asterisk names them.
        returns: What a 2xx holds: a model, a tuple of models, or None for nothing.
        parameters: The names of all parameters that we may send beside those of the path.
        repeatable: Doing it twice is doing it once, so it may be sent again when a connection
            turns out to be stale. All are but POST, which says so itself.
        found_by: What it makes has a name that we have chosen, the last of the ids or `channelId`:
            so this tells whether an earlier attempt has made it.
        needs_events: What it makes ends at once where nobody listens to our application's events.
        whole_body: The name of the parameter that is all of the body; else the body has each
            parameter by its name.
    """

    method: Method
    path: str
    returns: Any = None
    parameters: tuple[str, ...] = ()
    repeatable: bool = False
    found_by: Operation[T] | None = None
    needs_events: bool = False
    whole_body: str | None = None
    _answer: TypeAdapter[T] = field(init=False, repr=False, compare=False)
    _pieces: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_pieces", tuple(_PLACEHOLDER.split(self.path)))
        # A model says this itself.
        of_many = None if isinstance(self.returns, type) else ConfigDict(cache_strings="keys")
        object.__setattr__(self, "_answer", TypeAdapter(self.returns, config=of_many))
        if self.method != "POST":
            object.__setattr__(self, "repeatable", True)

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The names in the path, in order."""
        return self._pieces[1::2]

    def fill_path(self, ids: Sequence[str]) -> str:
        """Return the path with its placeholders filled in order, each id quoted as one segment.

        Raises:
            ValueError: There are more or fewer ids than placeholders, or an id is empty or one
                that would lead to another resource.
        """
        # Text and names in turn.
        pieces = list(self._pieces)
        if len(ids) != len(pieces) // 2:
            raise ValueError(f"{self.path} takes {len(pieces) // 2} ids, not {len(ids)}")
        for place, value in enumerate(ids):
            if value in ("", ".", ".."):
                # A path that ends in "/" is another resource, or none; dots are not quoted, and
                # whoever stands between may resolve them.
                raise ValueError(f"{self.path}: an id is empty, or leads elsewhere")
            pieces[2 * place + 1] = quote(value, safe="")
        return "".join(pieces)

    def select(self, given: Mapping[str, Parameter]) -> dict[str, Parameter]:
        """Return the parameters to send: those that are not None.

        Raises:
            ValueError: One of them is not declared.
        """
        if undeclared := [name for name in given if name not in self.parameters]:
            raise ValueError(f"{self.method} {self.path} declares no {sorted(undeclared)}")
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in given.items()
            if value is not None
        }

    def read(self, body: bytes) -> T:
        """Turn the body of a 2xx into what the operation returns.

        Raises:
            AriMalformed: The body is not what Asterisk's own description says.
        """
        try:
            return self._answer.validate_json(b"null" if self.returns is None else body)
        except ValidationError as error:
            raise AriMalformed(
                f"the answer does not fit: {describe(error)}", method=self.method, path=self.path
            ) from None
