"""Sites: points of a model, at positions of one sequence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from transom.schema.plans.names import by, tag
from transom.schema.wire import Body

MAX_LAYER = 4095

_AT = re.compile(r"([a-z][a-z0-9_]{0,31})(?:\.(?:(\*)|(\d{1,4})(?:-(\d{1,4}))?))?")
_LENS_STYLE = re.compile(r"blocks\.(\d{1,4}|\*)\.(?:(attn|mlp)\.)?(hook_[a-z_]+)")

ALIASES = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    # What TransformerLens calls so is the contribution to the residual stream, after any norm.
    "hook_attn_out": "attn_out_post",
    "hook_mlp_out": "mlp_out_post",
    "attn.hook_q": "q",
    "attn.hook_k": "k",
    "attn.hook_v": "value",
    "attn.hook_rot_q": "q_rot",
    "attn.hook_rot_k": "k_rot",
    "attn.hook_attn_scores": "attn_scores",
    "attn.hook_pattern": "attn_probs",
    "attn.hook_z": "z",
    "mlp.hook_pre": "mlp_pre",
    "mlp.hook_pre_linear": "mlp_pre_linear",
    "mlp.hook_post": "mlp_act",
}
"""TransformerLens's names of points in a layer, and ours."""

GLOBAL_ALIASES = {"hook_embed": "embeddings"}


@dataclass(frozen=True, slots=True)
class PointName:
    """A point, and in which layers."""

    point: str
    first: int | None = None
    """None for a point that belongs to no layer, or for all layers."""
    last: int | None = None
    every: bool = False
    """All layers that have it."""

    @property
    def layered(self) -> bool:
        """Whether it names several layers."""
        return self.every or self.first != self.last


def parse_point(text: str) -> PointName:
    """A point's name: `resid_post.5`, `resid_post.*`, `resid_post.3-7`, `embeddings`, or TransformerLens's.

    Raises:
        ValueError: it is none of these.
    """
    lens = _LENS_STYLE.fullmatch(text)
    if text in GLOBAL_ALIASES:
        return PointName(GLOBAL_ALIASES[text])
    if lens is not None:
        part = f"{lens[2]}." if lens[2] else ""
        point = ALIASES.get(f"{part}{lens[3]}")
        if point is None:
            raise ValueError(
                "is a name of TransformerLens for which this server has no point of the same meaning"
            )
        return (
            PointName(point, every=True) if lens[1] == "*" else PointName(point, int(lens[1]), int(lens[1]))
        )
    found = _AT.fullmatch(text)
    if found is None:
        raise ValueError(
            "names no point; spell it `resid_post.5`, `resid_post.*`, `resid_post.3-7` or `embeddings`"
        )
    point, every, first, last = found.groups()
    if first is None:
        return PointName(point, every=every is not None)
    begin, end = int(first), int(last or first)
    if end < begin:
        raise ValueError("names its last layer before its first")
    return PointName(point, begin, end)


class Span(Body):
    """Positions of the prompt from one up to another."""

    first: int = Field(default=0, alias="from", ge=-(2**31), lt=2**31, description="Negative from the end")
    to: int | None = Field(
        default=None, ge=-(2**31), lt=2**31, description="Not included; absent for the end"
    )


class Match(Body):
    """The tokens that spell a text in the prompt."""

    match: str = Field(min_length=1, max_length=1024)
    nth: int = Field(default=0, ge=0, lt=2**31, description="Which occurrence, from 0")


class Phase(Body):
    """The prompt's positions, or those of generated tokens."""

    phase: Literal["prompt", "generated"]
    first: int = Field(default=0, alias="from", ge=0, lt=2**31)
    to: int | None = Field(default=None, ge=0, lt=2**31, description="Not included; absent for the end")


def _kind(value: Any) -> str:  # noqa: ANN401
    """Which alternative is meant, so that one of them complains and not all."""
    if isinstance(value, dict):
        return next((name for name in ("phase", "match") if name in value), "span")
    if isinstance(value, Match | Phase | Span):
        return type(value).__name__.lower()
    return "list" if isinstance(value, list) else "word" if isinstance(value, str) else "index"


Index = Annotated[int, Field(ge=-(2**31), lt=2**31)]

Pos: TypeAlias = Annotated[
    Annotated[Literal["all", "last"], tag("word")]
    | Annotated[Index, tag("index")]
    | Annotated[list[Index], Field(min_length=1, max_length=4096), tag("list")]
    | Annotated[Span, tag("span")]
    | Annotated[Match, tag("match")]
    | Annotated[Phase, tag("phase")],
    by(_kind),
]
"""Positions of a sequence; negative numbers count from the prompt's end."""


def _rising(numbers: list[int]) -> list[int]:
    if any(left >= right for left, right in pairwise(numbers)):
        raise PydanticCustomError("rising", "must rise, and name nothing twice")
    return numbers


Numbers = Annotated[
    list[Annotated[int, Field(ge=0, lt=2**31)]],
    Field(min_length=1, max_length=65536),
    AfterValidator(_rising),
]


class Site(Body):
    """A point at positions, perhaps only some heads or units of it."""

    at: str = Field(max_length=100, description="Such as `resid_post.5`, or TransformerLens's name of it")
    pos: Pos = "all"
    head: Numbers | None = Field(default=None, description="Heads, rising; absent for all")
    unit: Numbers | None = Field(
        default=None, description="Numbers of a row, or of each head, rising; absent for all"
    )

    @property
    def point(self) -> PointName:
        """What `at` names."""
        return parse_point(self.at)

    @model_validator(mode="after")
    def _check_site(self) -> Site:
        try:
            parse_point(self.at)
        except ValueError as error:
            raise PydanticCustomError(
                "at", "{at} {reason}", {"field": "at", "at": self.at, "reason": str(error)}
            ) from error
        return self
