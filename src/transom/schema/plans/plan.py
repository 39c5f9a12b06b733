"""`POST /v1/traces`: what is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from transom.schema.chat import Message
from transom.schema.generation import MAX_SEED, MAX_TOP_LOGPROBS
from transom.schema.plans.names import Name, RefText, owner
from transom.schema.plans.sites import Site
from transom.schema.plans.tensors import Inline
from transom.schema.wire import Body, TokenId

MAX_RUNS = 256
MAX_TAPS = 64
"""Reads, or writes, of one run."""
MAX_DERIVED = 256
MAX_INLINE = 8 << 20
"""Bytes of all tensors in one plan."""


def _is_text(value: Any) -> str:  # noqa: ANN401
    return "text" if isinstance(value, str) else "inline"


Ref: TypeAlias = Annotated[
    Annotated[RefText, Tag("text")] | Annotated[Inline, Tag("inline")], Discriminator(_is_text)
]


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
    kinds = {Conversation: "messages", Tokens: "token_ids", Prompt: "prompt"}
    return kinds.get(type(value), "text")


Input: TypeAlias = Annotated[
    Annotated[str, Field(min_length=1), Tag("text")]
    | Annotated[Prompt, Tag("prompt")]
    | Annotated[Conversation, Tag("messages")]
    | Annotated[Tokens, Tag("token_ids")],
    Discriminator(_input),
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
    return {Targets: "targets", Vocabulary: "vocabulary"}.get(type(value), "topk")


class Unembed(Body):
    """The logit lens: final norm and output matrix, as logprobs."""

    unembed: Annotated[
        Annotated[TopK, Tag("topk")] | Annotated[Targets, Tag("targets")] | Annotated[Vocabulary, Tag("vocabulary")],
        Discriminator(_kept),
    ]


def _reduction(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, dict):
        return "unembed" if "unembed" in value else "project"
    return {Project: "project", Unembed: "unembed"}.get(type(value), "word")


class Read(Site):
    """A value to keep."""

    reduce: Annotated[
        Annotated[Literal["none", "mean", "norm"], Tag("word")]
        | Annotated[Project, Tag("project")]
        | Annotated[Unembed, Tag("unembed")],
        Discriminator(_reduction),
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


Op = Literal["set", "add", "zero", "mean", "noise", "scale_along", "project_out", "clamp", "swap"]

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
            Annotated[RefText, Tag("text")]
            | Annotated[Inline, Tag("inline")]
            | Annotated[FromRun, Tag("run")]
            | Annotated[float, Tag("number")],
            Discriminator(_value),
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
                "value", "of {op} must be {takes}, not {given}",
                {"op": self.op, "takes": _TAKES[self.op], "given": given},
            )
        if (self.op in _NEEDS_SCALE) != (self.scale is not None) and self.op != "add":
            verb = "needs" if self.op in _NEEDS_SCALE else "takes no"
            raise PydanticCustomError("scale", "{op} {verb} scale", {"op": self.op, "verb": verb})
        if self.point.layered:
            raise PydanticCustomError("at", "a write names one layer; write once for each")
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


class Sub(Body):
    """One less the other."""

    sub: list[Ref] = Field(min_length=2, max_length=2)


class Add(Body):
    """The sum."""

    add: list[Ref] = Field(min_length=2, max_length=64)


class Scale(Body):
    """A value times a number."""

    scale: Ref
    by: float = Field(ge=-1e12, le=1e12)


class Mean(Body):
    """Over an axis, or over values."""

    mean: list[Ref] = Field(min_length=1, max_length=64)
    axis: Literal["", "layer", "pos", "head", "unit", "stack"] = Field(
        default="", description="Of a single value; empty for the first one"
    )


class Stack(Body):
    """Values of one shape, one after the other."""

    stack: list[Ref] = Field(min_length=1, max_length=256)


class Dot(Body):
    """Over the last axis."""

    dot: list[Ref] = Field(min_length=2, max_length=2)


class Normalize(Body):
    """To length 1 along the last axis."""

    normalize: Ref


class Largest(Body):
    """The largest along the last axis, and where they are."""

    topk: Ref
    k: int = Field(ge=1, le=4096)


_EXPRESSIONS = ("sub", "add", "scale", "mean", "stack", "dot", "normalize", "topk")


def _expression(value: Any) -> str | None:  # noqa: ANN401
    if isinstance(value, dict):
        return next((name for name in _EXPRESSIONS if name in value), None)
    return next((name for name in _EXPRESSIONS if hasattr(value, name)), None)


Expr: TypeAlias = Annotated[
    Annotated[Sub, Tag("sub")]
    | Annotated[Add, Tag("add")]
    | Annotated[Scale, Tag("scale")]
    | Annotated[Mean, Tag("mean")]
    | Annotated[Stack, Tag("stack")]
    | Annotated[Dot, Tag("dot")]
    | Annotated[Normalize, Tag("normalize")]
    | Annotated[Largest, Tag("topk")],
    Discriminator(
        _expression,
        custom_error_type="expression",
        custom_error_message=f"is none of {', '.join(_EXPRESSIONS)}",
    ),
]


def operation(expr: Any) -> tuple[str, list[str | Inline]]:  # noqa: ANN401
    """The operation of an expression, and what it is applied to."""
    name = _expression(expr) or ""
    operands = getattr(expr, name)
    return name, operands if isinstance(operands, list) else [operands]


class Plan(Body):
    """Runs, and what is made of their values."""

    refused: ClassVar[dict[str, str]] = {"sweep": "sweeps are not offered yet; write a run for each cell"}

    model: str | None = None
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    runs: dict[Name, Run] = Field(min_length=1, max_length=MAX_RUNS)
    derive: dict[Name, Expr] = Field(default_factory=dict, max_length=MAX_DERIVED)
    returns: list[RefText] = Field(alias="return", min_length=1, max_length=1024)
    format: Literal["safetensors", "json"] = "safetensors"

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        for field, ref in self._refs():
            if isinstance(ref, str):
                self._check_ref(field, ref)
        for name, run in self.runs.items():
            for index, source in run.swaps():
                if source not in self.runs:
                    raise _unknown(f"runs.{name}.write.{index}.value.run", source, self.runs)
        if sum(ref.array.nbytes for _, ref in self._refs() if isinstance(ref, Inline)) > MAX_INLINE:
            raise PydanticCustomError("inline", "all inline tensors have more than {most} bytes", {"most": MAX_INLINE})
        self.order()
        self.derived_order()
        return self

    def order(self) -> list[str]:
        """The runs, each after those that it needs.

        Raises:
            PydanticCustomError: they go round in a circle.
        """
        return _sorted(
            {
                name: {owner(ref) for _, ref in run.refs() if isinstance(ref, str)} | {s for _, s in run.swaps()}
                for name, run in self.runs.items()
            },
            "runs",
        )

    def derived_order(self) -> list[str]:
        """The derived values, each after those that it needs; raises as `order` does."""
        needs = {
            name: {
                ref.split(".")[1] for ref in operation(expr)[1] if isinstance(ref, str) and owner(ref) == "derive"
            }
            for name, expr in self.derive.items()
        }
        return _sorted(needs, "derive")

    def _refs(self) -> Iterator[tuple[str, str | Inline]]:
        for name, run in self.runs.items():
            yield from ((f"runs.{name}.{field}", ref) for field, ref in run.refs())
        for name, expr in self.derive.items():
            found, operands = operation(expr)
            yield from ((f"derive.{name}.{found}.{index}", ref) for index, ref in enumerate(operands))
        yield from ((f"return.{index}", ref) for index, ref in enumerate(self.returns))

    def _check_ref(self, field: str, ref: str) -> None:
        whose, name = ref.split(".")[:2]
        if whose == "derive":
            if field.startswith("runs."):
                raise PydanticCustomError(
                    "ref", "{field}: {ref} is known once all runs are; refer to a read", {"field": field, "ref": ref}
                )
            if name not in self.derive:
                raise _unknown(field, name, self.derive)
            return
        if whose not in self.runs:
            raise _unknown(field, whose, self.runs)
        run = self.runs[whose]
        generated = ("tokens", "logprobs") if run.generate is not None else ()
        if name not in (*run.read, *generated):
            raise _unknown(field, ref, [f"{whose}.{each}" for each in (*run.read, *generated)])


def _unknown(field: str, name: str, known: Any) -> PydanticCustomError:  # noqa: ANN401
    listed = ", ".join(list(known)[:20]) or "none"
    return PydanticCustomError(
        "ref", "{field}: there is no {name}; there are: {known}", {"field": field, "name": name, "known": listed}
    )


def _sorted(needs: dict[str, set[str]], what: str) -> list[str]:
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle = " needs ".join(reversed(error.args[1]))
        raise PydanticCustomError("cycle", "{what} go round in a circle: {circle}", {"what": what, "circle": circle}) from None
