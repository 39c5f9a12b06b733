"""Runs: one sequence each, what it reads and what it changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from transom.schema.chat import Message
from transom.schema.generation import MAX_TOP_LOGPROBS
from transom.schema.plans.names import Name, RefText, by, tag
from transom.schema.plans.sites import Site
from transom.schema.plans.tensors import Inline, Ref
from transom.schema.wire import Body, TokenId

MAX_TAPS = 64
"""Reads, or writes, of one run."""


class Prompt(Body):
    """A text to begin with."""

    prompt: str = Field(min_length=1)
    add_special_tokens: bool = True


class Conversation(Body):
    """A conversation, up to where the assistant's answer begins."""

    messages: list[Message] = Field(min_length=1, max_length=4096)


class Tokens(Body):
    """Token ids, taken as they are."""

    token_ids: list[TokenId] = Field(min_length=1, max_length=1 << 20)


def _input(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, dict):
        return next((name for name in ("messages", "token_ids") if name in value), "prompt")
    kinds: dict[type[Any], str] = {Conversation: "messages", Tokens: "token_ids", Prompt: "prompt"}
    return kinds.get(type(value), "text")


Input: TypeAlias = Annotated[
    Annotated[str, Field(min_length=1), tag("text")]
    | Annotated[Prompt, tag("prompt")]
    | Annotated[Conversation, tag("messages")]
    | Annotated[Tokens, tag("token_ids")],
    by(_input),
]


class Generate(Body):
    """How a run goes on after its prompt."""

    max_tokens: int = Field(ge=1, le=2**31)
    temperature: float = Field(default=0.0, ge=0, le=2)
    top_k: int = Field(default=0, ge=0, le=2**31)
    top_p: float = Field(default=1.0, gt=0, le=1)
    min_p: float = Field(default=0.0, ge=0, le=1)
    stop_token_ids: list[TokenId] = Field(default_factory=list, max_length=64)
    ignore_eos: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)


class Project(Body):
    """Dot product with a direction."""

    project: Ref


class TopK(Body):
    """The likeliest tokens."""

    topk: int = Field(ge=1, le=1024)


class Targets(Body):
    """Some tokens."""

    targets: list[TokenId] = Field(min_length=1, max_length=1024)


class Vocabulary(Body):
    """Every token."""

    vocabulary: Literal[True]


def _kept(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, dict):
        return next((name for name in ("targets", "vocabulary") if name in value), "topk")
    kinds: dict[type[Any], str] = {Targets: "targets", Vocabulary: "vocabulary"}
    return kinds.get(type(value), "topk")


class Unembed(Body):
    """The logit lens: final norm and output matrix, as logprobs."""

    unembed: Annotated[
        Annotated[TopK, tag("topk")]
        | Annotated[Targets, tag("targets")]
        | Annotated[Vocabulary, tag("vocabulary")],
        by(_kept),
    ]


def _reduction(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, dict):
        return "unembed" if "unembed" in value else "project"
    kinds: dict[type[Any], str] = {Project: "project", Unembed: "unembed"}
    return kinds.get(type(value), "word")


class Read(Site):
    """A value to keep."""

    reduce: Annotated[
        Annotated[Literal["none", "mean", "norm"], tag("word")]
        | Annotated[Project, tag("project")]
        | Annotated[Unembed, tag("unembed")],
        by(_reduction),
    ] = "none"


class FromRun(Body):
    """What another run has at the same site."""

    run: Name


def _value(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, dict):
        return "run" if "run" in value else "inline"
    if isinstance(value, FromRun):
        return "run"
    return "inline" if isinstance(value, Inline) else "text" if isinstance(value, str) else "number"


Op: TypeAlias = Literal["set", "add", "zero", "mean", "noise", "scale_along", "project_out", "clamp", "swap"]

_TAKES = {
    "set": "a reference or a number",
    "add": "a reference or a number",
    "mean": "a reference",
    "scale_along": "a reference",
    "project_out": "a reference",
    "clamp": "a reference",
    "swap": '{"run": name}',
    "zero": "none",
    "noise": "none",
}
_NEEDS_SCALE = frozenset({"noise", "scale_along", "clamp"})


class Write(Site):
    """A change."""

    op: Op
    value: (
        Annotated[
            Annotated[RefText, tag("text")]
            | Annotated[Inline, tag("inline")]
            | Annotated[FromRun, tag("run")]
            | Annotated[float, tag("number")],
            by(_value),
        ]
        | None
    ) = None
    scale: float | None = Field(default=None, ge=-1e12, le=1e12)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = {
            type(None): "none",
            float: "a number",
            FromRun: '{"run": name}',
        }.get(type(self.value), "a reference")
        if given not in _TAKES[self.op]:
            raise PydanticCustomError(
                "value",
                "of {op} must be {takes}, not {given}",
                {"field": "value", "op": self.op, "takes": _TAKES[self.op], "given": given},
            )
        if (self.op in _NEEDS_SCALE) != (self.scale is not None) and self.op != "add":
            verb = "needs" if self.op in _NEEDS_SCALE else "takes no"
            raise PydanticCustomError(
                "scale", "{op} {verb} scale", {"field": "scale", "op": self.op, "verb": verb}
            )
        if self.point.layered:
            raise PydanticCustomError("at", "names several layers; write to each", {"field": "at"})
        return self


class Run(Body):
    """One sequence."""

    refused: ClassVar[dict[str, str]] = {"grad": "gradients are not offered yet"}

    input: Input
    generate: Generate | None = None
    read: dict[Name, Read] = Field(default_factory=dict, max_length=MAX_TAPS)
    write: list[Write] = Field(default_factory=list, max_length=MAX_TAPS)

    def refs(self) -> Iterator[tuple[str, str | Inline]]:
        """(field, value) of everything that it refers to."""
        for index, write in enumerate(self.write):
            if isinstance(write.value, str | Inline):
                yield f"write.{index}.value", write.value
        for name, read in self.read.items():
            if isinstance(read.reduce, Project):
                yield f"read.{name}.reduce.project", read.reduce.project

    def swaps(self) -> Iterator[tuple[int, str]]:
        """(index of a write, run whose values it takes)."""
        for index, write in enumerate(self.write):
            if isinstance(write.value, FromRun):
                yield index, write.value.run
