"""Names in a plan: of runs and values, and how values are referred to."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

RESERVED = frozenset({"derive", "artifact", "inline", "tokens", "logprobs"})
"""Words that no run and no value may have for a name."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_REF = re.compile(r"([a-z][a-z0-9_]{0,31})\.([a-z][a-z0-9_]{0,31})(\.ids)?")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise PydanticCustomError(
            "name",
            "is no name: use up to 32 of a-z, 0-9 and _, and begin with a letter",
        )
    if value in RESERVED:
        raise PydanticCustomError("name", "is a word of the grammar; choose another name")
    return value


Name = Annotated[str, Field(max_length=64), AfterValidator(_name)]
"""A name that somebody chose."""


def _ref(value: str) -> str:
    if not _REF.fullmatch(value):
        raise PydanticCustomError(
            "ref", "refers to nothing: spell it `run.read`, `run.tokens`, `run.logprobs` or `derive.name`"
        )
    return value


RefText = Annotated[str, Field(max_length=80), AfterValidator(_ref)]
"""A reference to a value of a run, or to a derived one."""


def owner(ref: str) -> str:
    """The run that a reference names, or `derive`."""
    return ref.partition(".")[0]


def by(choose: Callable[[Any], str | None]) -> Discriminator:
    """Chooses one alternative of a union, tagged by `tag`, so that only that one complains."""
    return Discriminator(lambda value: None if (found := choose(value)) is None else f"[{found}]")


def tag(name: str) -> Tag:
    """The tag of an alternative; in brackets, which are never part of a field's path."""
    return Tag(f"[{name}]")
