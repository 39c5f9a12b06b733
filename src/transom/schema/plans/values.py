"""What all parts of a plan are made of: names, numbers, and errors that name the very field."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, LiteralString

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WrapValidator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

Loc = tuple[str | int, ...]
"""Where in a plan something stands: keys and indices, from the outside in."""

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)

FLOAT32_MAX = 3.4028234663852886e38

RESERVED_NAMES = frozenset({"derive", "artifact", "inline"})
"""References begin with these words, so nothing is called by them."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)


def is_name(text: str) -> bool:
    """Whether something of a plan may be called so."""
    return _NAME.fullmatch(text) is not None and text not in RESERVED_NAMES


def _name(text: str) -> str:
    if text in RESERVED_NAMES:
        raise PydanticCustomError("name", "is a word that references begin with; choose another name")
    if not is_name(text):
        raise PydanticCustomError(
            "name",
            "must be a lower-case letter and then at most 31 lower-case letters, digits or underscores, "
            "as in clean_2",
        )
    return text


Name = Annotated[
    str,
    AfterValidator(_name),
    Field(
        description="A lower-case letter, then at most 31 lower-case letters, digits or underscores; none of "
        "`derive`, `artifact`, `inline`.",
        json_schema_extra={"pattern": f"^{_NAME.pattern}$"},
    ),
]

Number = Annotated[float, Field(ge=-FLOAT32_MAX, le=FLOAT32_MAX)]
"""A finite number that is one in float32 too."""


def located(*problems: InitErrorDetails) -> ValidationError:
    """An error of a validator whose findings stand deeper than what it validates."""
    return ValidationError.from_exception_data("Plan", list(problems))


def problem(loc: Loc, kind: LiteralString, message: LiteralString, **context: object) -> InitErrorDetails:
    """One finding. What a message says of a reader's text is in `context`, where its braces mean nothing."""
    return InitErrorDetails(type=PydanticCustomError(kind, message, context), loc=loc, input=None)


def form(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401
    """A member of a union, as strict as a body even where it is none."""
    is_body = isinstance(kind, type) and issubclass(kind, BaseModel)
    return TypeAdapter(kind, config=None if is_body else _STRICT)


def one_of(choose: Callable[[Any], TypeAdapter[Any] | None], expected: LiteralString) -> WrapValidator:
    """Choose the member of a union by what a value looks like, and report only what that member says.

    Pydantic's own unions report the misses of all members, or put a member's name into the location.
    """

    def validate(value: Any, handler: Callable[[Any], Any]) -> Any:  # noqa: ANN401
        if isinstance(value, BaseModel):
            return handler(value)
        member = choose(value)
        if member is None:
            raise PydanticCustomError("one_of", expected)
        return member.validate_python(value)

    return WrapValidator(validate)


def by_key(members: dict[str, TypeAdapter[Any]], value: object) -> TypeAdapter[Any] | None:
    """The member whose key an object has; the first, should it have several."""
    if not isinstance(value, dict):
        return None
    return next((member for key, member in members.items() if value.get(key) is not None), None)


def pair(what: str) -> BeforeValidator:
    """Two of something, in order; JSON has lists where we have tuples."""

    def check(value: object) -> object:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise PydanticCustomError("pair", "must be a list of two: {what}", {"what": what})
        return tuple(value)

    return BeforeValidator(check)


def named_once(values: list[int]) -> list[int]:
    """As they are; one that is named twice is refused."""
    seen: set[int] = set()
    for value in values:
        if value in seen:
            raise PydanticCustomError("twice", "names {value} twice; name it once", {"value": value})
        seen.add(value)
    return values


def listed(names: Iterable[str], most: int = 8) -> str:
    """Some names, to be read in an error."""
    found = list(names)
    return ", ".join(found[:most]) + (", ..." if len(found) > most else "") or "none"
