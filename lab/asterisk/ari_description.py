"""Compares what this client sends and expects with the description that Asterisk serves. Pure.

A running Asterisk serves it as swagger 1.1 under `/ari/api-docs/`: `resources.json` names the
documents, each of which has `apis` (paths with operations) and `models`. Debian's package has the
same files in `/usr/share/asterisk/rest-api/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from types import ModuleType, NoneType, UnionType
from typing import Any, get_args, get_origin

from ari_app.line.asterisk.ari import resources, socket
from ari_app.line.asterisk.ari.events import EVENTS, AriEvent
from ari_app.line.asterisk.ari.models import Resource
from ari_app.line.asterisk.ari.operation import Operation

Document = Mapping[str, Any]

_SIMPLE: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "Date": (datetime,),
    "int": (int,),
    "long": (int,),
    "double": (float,),
    "boolean": (bool,),
    "object": (dict,),
}


def operations() -> tuple[Operation[Any], ...]:
    """Everything that this client can ask of Asterisk."""
    return tuple(declared for module in (resources, socket) for declared in _declared(module))


def _declared(module: ModuleType) -> Iterator[Operation[Any]]:
    return (value for value in vars(module).values() if isinstance(value, Operation))


def models() -> tuple[type[Resource], ...]:
    """Everything that this client reads, by way of what it asks for and the events it knows."""
    found: dict[str, type[Resource]] = {}
    pending: list[Any] = [AriEvent, *EVENTS.values(), *(each.returns for each in operations())]
    while pending:
        kind = pending.pop()
        pending.extend(get_args(kind))
        if isinstance(kind, type) and issubclass(kind, Resource) and kind.__name__ not in found:
            found[kind.__name__] = kind
            pending.extend(info.annotation for info in kind.model_fields.values())
    return tuple(found.values())


def check_against_swagger(resources: Mapping[str, Document]) -> list[str]:
    """Find out where this client and an Asterisk disagree.

    Checked are every path and method, every parameter (those we may send exist, and those Asterisk
    demands are among them), what comes back, and every field of every model: that it exists, that
    its type is ours, and that none we rely on is optional.

    Args:
        resources: The documents by any name: `{"channels": {...}, "events": {...}}`. Only their
            contents count.

    Returns:
        One sentence for each disagreement; empty when all is well.
    """
    described: dict[tuple[str, str], Document] = {}
    schemas: dict[str, Document] = {}
    for document in resources.values():
        for api in document.get("apis", ()):
            for operation in api.get("operations", ()):
                described[operation["httpMethod"], api["path"]] = operation
        schemas.update(document.get("models", {}))
    problems = [
        problem
        for operation in operations()
        for problem in _check_operation(
            operation, described.get((operation.method, operation.path))
        )
    ]
    problems += [problem for model in models() for problem in _check_model(model, schemas)]
    return problems


def _check_operation(ours: Operation[Any], theirs: Document | None) -> Iterator[str]:
    name = f"{ours.method} {ours.path}"
    if theirs is None:
        yield f"{name}: there is no such operation"
        return
    offered = {
        parameter["name"]: parameter
        for parameter in theirs.get("parameters", ())
        if parameter["paramType"] != "path"
    }
    for parameter in ours.parameters:
        if parameter not in offered:
            yield f"{name}: there is no parameter {parameter}"
        elif offered[parameter]["paramType"] == "body" and ours.method not in ("POST", "PUT"):
            yield f"{name}: parameter {parameter} must be sent in a body"
    for parameter, description in offered.items():
        if description.get("required") and parameter not in ours.parameters:
            yield f"{name}: parameter {parameter} is required"
    returned = theirs.get("responseClass", "void")
    # A WebSocket is described by what its messages are.
    if "upgrade" not in theirs and not _fits(ours.returns, returned):
        yield f"{name}: returns {returned}"


def _check_model(model: type[Resource], schemas: Mapping[str, Document]) -> Iterator[str]:
    # The base of all has a plainer name there.
    name = "Event" if model is AriEvent else model.__name__
    if name not in schemas:
        yield f"{name}: there is no such model"
        return
    offered = _properties(name, schemas)
    for field, info in model.model_fields.items():
        if field not in offered:
            yield f"{name}: there is no field {field}"
            continue
        theirs = offered[field]
        if not _fits(info.annotation, theirs["type"]):
            yield f"{name}.{field}: is a {theirs['type']}"
        if info.is_required() and not theirs.get("required"):
            yield f"{name}.{field}: may be missing"


def _properties(name: str, schemas: Mapping[str, Document]) -> dict[str, Document]:
    """The fields of a model and of those that it is a `subTypes` of."""
    found: dict[str, Document] = {}
    for parent, schema in schemas.items():
        if name in schema.get("subTypes", ()):
            found.update(_properties(parent, schemas))
    found.update(schemas[name].get("properties", {}))
    return found


def _fits(ours: Any, theirs: str) -> bool:
    if get_origin(ours) is UnionType:
        return any(_fits(each, theirs) for each in get_args(ours) if each is not NoneType)
    if ours is None:
        return theirs == "void"
    if theirs.startswith("List["):
        return get_origin(ours) is tuple and _fits(get_args(ours)[0], theirs[5:-1])
    kind = get_origin(ours) or ours
    return kind in _SIMPLE.get(theirs, ()) or getattr(kind, "__name__", "") == theirs
