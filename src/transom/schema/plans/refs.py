"""References: how one part of a plan takes the value of another, of an artifact, or of a tensor at hand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter
from pydantic_core import PydanticCustomError

from transom.schema.plans.tensors import Inline
from transom.schema.plans.values import Loc, Name, form, is_name, one_of
from transom.schema.wire import Body


@dataclass(frozen=True, slots=True)
class RunOutput:
    """`run.name` or `run.name.part`: what a run reads, a gradient of it, or what it generated."""

    run: str
    name: str
    part: str | None = None
    """One tensor of a value that consists of two, such as `ids` of the most likely tokens."""


@dataclass(frozen=True, slots=True)
class Derived:
    """`derive.name` or `derive.name.part`."""

    name: str
    part: str | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """`artifact:<64 hex>` or `artifact:<64 hex>#tensor`: something uploaded, by its SHA-256."""

    sha256: str
    tensor: str | None = None


@dataclass(frozen=True, slots=True)
class WholeRun:
    """A run as such, whose values at some site are taken, or whose predictions are compared with."""

    run: str


Target = RunOutput | Derived | Artifact | Inline | WholeRun

Role = Literal["returned", "tensor", "mean", "run"]
"""What a reference is used for: to be returned, as the operand of something, as an operand without a position
axis, or, of a whole run, as the other run of a comparison."""


@dataclass(frozen=True, slots=True)
class Use:
    """One reference where it stands."""

    loc: Loc
    target: Target
    role: Role = "tensor"

    def below(self, *loc: str | int) -> Use:
        """The same, seen from further outside."""
        return Use((*loc, *self.loc), self.target, self.role)


_ARTIFACT = re.compile(r"artifact:(?P<sha256>[0-9a-f]{64})(?:#(?P<tensor>.+))?", re.ASCII)
# Names of tensors as checkpoints and libraries write them; no `..`, no slash: nothing that is half a path.
_TENSOR = re.compile(r"(?=.{1,128}\Z)[A-Za-z0-9_]+(?:[.-][A-Za-z0-9_]+)*", re.ASCII)


def is_tensor_name(text: str) -> bool:
    """Whether a reference can name a tensor of an artifact so."""
    return _TENSOR.fullmatch(text) is not None


@lru_cache(maxsize=4096)
def parse_ref(text: str) -> RunOutput | Derived | Artifact:
    """What a reference in text form names.

    Raises:
        PydanticCustomError: it is no reference.
    """
    if text.startswith("artifact:"):
        return _artifact(text)
    owner, *rest = text.split(".")
    if not 1 <= len(rest) <= 2 or not all(map(is_name, rest)) or not (owner == "derive" or is_name(owner)):
        raise PydanticCustomError(
            "reference",
            "is no reference; write run.read, derive.name, artifact: and 64 hexadecimal digits, or an object "
            "with an inline tensor",
        )
    return Derived(*rest) if owner == "derive" else RunOutput(owner, *rest)


def _artifact(text: str) -> Artifact:
    found = _ARTIFACT.fullmatch(text)
    if found is None:
        raise PydanticCustomError(
            "reference",
            "is no artifact; write artifact: and its SHA-256 as 64 lower-case hexadecimal digits, then, for "
            "one tensor of several, # and the tensor's name",
        )
    tensor = found["tensor"]
    if tensor is not None and not is_tensor_name(tensor):
        raise PydanticCustomError(
            "reference",
            "names no tensor after #; write letters, digits and underscores, joined by single dots or "
            "hyphens",
        )
    return Artifact(found["sha256"], tensor)


def _refers(text: str) -> str:
    parse_ref(text)
    return text


RefText = Annotated[
    str,
    Field(
        max_length=256,
        description="`run.read`, `derive.name`, `artifact:<SHA-256>` or `artifact:<SHA-256>#tensor`.",
    ),
    AfterValidator(_refers),
]

_TEXT = form(RefText)
_INLINE = form(Inline)


def text_or_inline(value: object) -> TypeAdapter[Any] | None:
    """The form of a reference, by its look; None for what is none."""
    return _TEXT if isinstance(value, str) else _INLINE if isinstance(value, dict) else None


Ref = Annotated[
    RefText | Inline,
    one_of(text_or_inline, "must be a reference: text such as run.read, or an object with an inline tensor"),
]


class OtherRun(Body):
    """Another run of the plan."""

    run: Name


def target_of(ref: str | Inline | OtherRun) -> Target:
    """What a reference in either form, or the name of another run, stands for."""
    if isinstance(ref, OtherRun):
        return WholeRun(ref.run)
    return ref if isinstance(ref, Inline) else parse_ref(ref)
