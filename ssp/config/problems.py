"""What pydantic found wrong, as one line: all problems, each with its key, misspelled keys first."""

from __future__ import annotations

import types
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

# What pydantic calls things in other words than a config file does.
_WORDS = {
    "missing": "missing",
    "model_type": "give a mapping of keys",
    "dict_type": "give a mapping of keys",
    "list_type": "give a list",
    "tuple_type": "give a list",
    "string_type": "give a text",
    "int_type": "give a whole number",
    "int_parsing": "give a whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "float_parsing": "give a number",
    "bool_type": "give true or false",
    "bool_parsing": "give true or false",
}
_MOST = 12  # problems in the line; a file of another kind has hundreds


class _Place(NamedTuple):
    """Where a problem is."""

    keys: tuple[str, ...]  # as the user wrote them
    owner: type[BaseModel] | None  # the model that does (not) have the last key
    union: Any  # the union that a value matches no alternative of, if that is the problem


def problems(error: ValidationError, model: type[BaseModel], at: Sequence[str] = (), *, noun: str = "key") -> str:
    """All problems of a validation in one line, separated by "; ".

    Args:
        error: what the model raised.
        model: the model that was to be validated, which knows the keys that there are.
        at: keys in front of the model's own.
        noun: what a key is called.
    """
    found: dict[tuple[str, ...], list[tuple[_Place, Any]]] = {}
    for detail in error.errors(include_url=False, include_context=False):
        place = _place(model, detail["loc"])
        found.setdefault(place.keys, []).append((place, detail))
    unknown, lines = [], []
    for keys, entries in _without_other_alternatives(found).items():
        name = ".".join(_printable(key) for key in (*at, *keys))
        for place, detail in entries[:1] if entries[0][0].union else entries:
            line = _sentence(place, detail, noun)
            (unknown if detail["type"] == "extra_forbidden" else lines).append(f"{name}: {line}" if name else line)
    lines = unknown + lines
    if len(lines) > _MOST:
        lines = [*lines[:_MOST], f"and {len(lines) - _MOST} more"]
    return "; ".join(lines)


def _place(model: type[BaseModel], loc: tuple[int | str, ...]) -> _Place:
    """Follow a location of pydantic's through the model; the tags of unions and of keys in it are nobody's keys."""
    keys, at, owner, union = [], model, None, None
    for part in loc:
        if part == "[key]":  # the name itself is wrong
            continue
        at = _bare(at)
        if _is_union(at):
            union, members = at, {_tag(member): member for member in get_args(at)}
            at = members.get(part)
            continue
        keys.append(str(part))
        owner, union = None, None
        if isinstance(at, type) and issubclass(at, BaseModel):
            owner, field = at, at.model_fields.get(part)
            at = field.annotation if field else None
        else:
            inner = get_args(at)  # of a dict the last is the values', of a tuple that of the place
            at = inner[part] if get_origin(at) is tuple and part in range(len(inner)) else (inner or (None,))[-1]
    return _Place(tuple(keys), owner, union)


def _bare(annotation: Any) -> Any:  # noqa: ANN401 - annotations are of many types
    """An annotation without what pydantic adds to no location: constraints, and that null is allowed."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if _is_union(annotation):
        members = [member for member in get_args(annotation) if member is not types.NoneType]
        return _bare(members[0]) if len(members) == 1 else annotation
    return annotation


def _is_union(annotation: Any) -> bool:  # noqa: ANN401 - annotations are of many types
    return get_origin(annotation) in (Union, types.UnionType)


def _tag(member: Any) -> str | None:  # noqa: ANN401 - annotations are of many types
    """What pydantic calls a model among the alternatives; the others have tags of pydantic's own making."""
    return member.__name__ if isinstance(member, type) else None


def _without_other_alternatives(found: dict[tuple, list]) -> dict[tuple, list]:
    """Pydantic complains once for each alternative; of a mapping only what the model among them says counts."""
    at_unions = [keys for keys, entries in found.items() if entries[0][0].union]
    inside = {keys for keys in at_unions for other in found if len(other) > len(keys) and other[: len(keys)] == keys}
    return {keys: entries for keys, entries in found.items() if keys not in inside}


def _sentence(place: _Place, detail: dict[str, Any], noun: str) -> str:
    kind, given = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return f"unknown {noun}; {_suggestion(place, str(detail['loc'][-1]), noun)}"
    if kind == "missing":
        return _WORDS[kind]
    if place.union is not None:
        return f"give {_choices(place.union)}{_given(given)}"
    message = _WORDS.get(kind, detail["msg"].removeprefix("Value error, "))
    if isinstance(given, dict | list) and not kind.endswith("_type"):
        return message  # about what is in it, which the message names
    return message + (_given(given) if place.keys else "")


def _suggestion(place: _Place, name: str, noun: str) -> str:
    known = list(place.owner.model_fields) if place.owner else []
    if near := get_close_matches(name, known, n=1):
        return f"did you mean '{near[0]}'?"
    return f"known: {', '.join(known)}" if known else f"there is no {noun} here"


def _choices(union: Any) -> str:  # noqa: ANN401 - annotations are of many types
    said = []
    for member in get_args(union):
        if isinstance(member, type) and issubclass(member, BaseModel):
            said.append(f"a mapping of {', '.join(member.model_fields)}")
        elif get_args(member):  # a Literal
            said += [repr(value) for value in get_args(member)]
        else:
            said.append(getattr(member, "__name__", str(member)))
    return f"{', '.join(said[:-1])} or {said[-1]}"


def _given(value: Any) -> str:  # noqa: ANN401 - whatever a file holds
    if value is None:
        return ", not nothing (null)"
    if isinstance(value, dict | list | tuple):
        return f", not a {'mapping' if isinstance(value, dict) else 'list'}"
    text = repr(value)
    return f", not {text if len(text) <= 120 else text[:117] + '...'}"


def _printable(key: str) -> str:
    return key if key.isprintable() else repr(key)
