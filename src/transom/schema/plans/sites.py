"""Sites: at which point, positions, heads and units something is read, written or differentiated."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, TypeAdapter, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from transom.schema.plans.refs import Ref, Use, target_of
from transom.schema.plans.values import by_key, form, located, named_once, one_of, problem
from transom.schema.points import POINTS, Point, PointRefused, SiteName, parse_site_name
from transom.schema.wire import MAX_POSITIONS, Body, TokenId

MAX_HEADS = 1024
MAX_UNITS = 1 << 16
MAX_TARGETS = 1024

Axis = Literal["layer", "pos", "head"]
"""What a sweep goes over."""

Index = Annotated[int, Field(ge=0, lt=2**31)]
Position = Annotated[int, Field(ge=-(2**31), lt=2**31)]


class Span(Body):
    """Positions from one to another."""

    start: Position = Field(alias="from", description="The first; negative counts from the prompt's end.")
    stop: Position | None = Field(
        default=None,
        alias="to",
        description="The first that is not meant any more; negative counts from the prompt's end. Left out, "
        "the end.",
    )

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        _refuse_empty(self.start, self.stop)
        return self


class Match(Body):
    """The tokens that spell a text, where it occurs in the prompt."""

    match: str = Field(min_length=1, max_length=1024)
    nth: int = Field(default=0, ge=0, lt=2**31, description="Which occurrence, counted from 0.")


class Phase(Body):
    """Positions of the prompt or of what was generated."""

    phase: Literal["prompt", "generated"]
    start: Position | None = Field(
        default=None,
        alias="from",
        description="The first. In the generated phase these are steps: step k is the position of the "
        "generated token k, counted from 0.",
    )
    stop: Position | None = Field(default=None, alias="to", description="The first that is not meant.")

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.phase == "generated":
            for key, value in (("from", self.start), ("to", self.stop)):
                if value is not None and value < 0:
                    message = "must be 0 or more: steps are counted from the first generated token"
                    raise located(problem((key,), "positions", message))
        _refuse_empty(self.start or 0, self.stop)
        return self


def _refuse_empty(start: int, stop: int | None) -> None:
    # Where the signs differ, the prompt's length decides.
    if stop is not None and (start < 0) == (stop < 0) and start >= stop:
        message = "must be above from, or no position is meant; it is the first that is left out"
        raise located(problem(("to",), "positions", message))


_WORDS = form(Literal["all", "last", "{pos}"])
_POSITION = form(Position)
_Positions = Annotated[
    list[Position],
    Field(min_length=1, max_length=MAX_POSITIONS),
    AfterValidator(named_once),
]
_POSITIONS = form(_Positions)
_BY_KEY = {"phase": form(Phase), "match": form(Match)}
_SPAN = form(Span)


def _form_of_pos(value: object) -> TypeAdapter[Any] | None:
    if isinstance(value, dict):
        return by_key(_BY_KEY, value) or _SPAN
    return {str: _WORDS, int: _POSITION, list: _POSITIONS}.get(type(value))


Pos = Annotated[
    Literal["all", "last", "{pos}"] | Position | _Positions | Phase | Match | Span,
    one_of(
        _form_of_pos,
        'must be "all", "last", a position, a list of positions, or an object with from, match or phase',
    ),
]

_HeadPlaceholder = Annotated[list[Literal["{head}"]], Field(min_length=1, max_length=1)]
_Heads = Annotated[
    list[Index],
    Field(min_length=1, max_length=MAX_HEADS),
    AfterValidator(named_once),
]
_HEAD_PLACEHOLDER = form(_HeadPlaceholder)
_HEADS = form(_Heads)


def _form_of_head(value: object) -> TypeAdapter[Any] | None:
    if not isinstance(value, list):
        return None
    return _HEAD_PLACEHOLDER if any(isinstance(item, str) for item in value) else _HEADS


def _names_a_point(at: str) -> str:
    try:
        parse_site_name(at)
    except PointRefused as refused:
        raise PydanticCustomError("point", "is refused: {reason}", {"reason": str(refused)}) from None
    return at


class Site(Body):
    """A place in the computation of a run."""

    at: Annotated[str, Field(max_length=128), AfterValidator(_names_a_point)] = Field(
        description="`point.layer`, `point` where it is global, `point.*` or `point.3-7` where several "
        "layers are meant, `point.{layer}` in a sweep, or the name that TransformerLens has for it."
    )
    pos: Pos = Field(default="all", description="Which positions; negative ones count from the prompt's end.")
    head: Annotated[_Heads | _HeadPlaceholder, one_of(_form_of_head, "must be a list of heads")] | None = (
        Field(default=None, description="Which heads, at points that have them. Left out, all.")
    )
    unit: (
        Annotated[list[Index], Field(min_length=1, max_length=MAX_UNITS), AfterValidator(named_once)] | None
    ) = Field(default=None, description="Which places of the last axis. Left out, all.")

    @model_validator(mode="after")
    def _heads_are_there(self) -> Self:
        if self.head is not None and not self.point.has_heads:
            message = "does not fit: {point} has no heads; leave it out, or choose a point such as z"
            raise located(problem(("head",), "head", message, point=self.point.name))
        return self

    @property
    def name(self) -> SiteName:
        """Point and layers, whichever way `at` spells them."""
        return parse_site_name(self.at)

    @property
    def point(self) -> Point:
        """The row of the table of points."""
        return POINTS[self.name.point]

    @property
    def has_layer_axis(self) -> bool:
        """Whether `at` means several layers, so that the value has an axis of them in front."""
        return self.name.layers == "all" or isinstance(self.name.layers, tuple)

    @property
    def placeholders(self) -> dict[Axis, str]:
        """The sweep's axes that it leaves open, each with the field where it does."""
        found: dict[Axis, str] = {}
        if self.name.layers == "{layer}":
            found["layer"] = "at"
        if self.pos == "{pos}":
            found["pos"] = "pos"
        if self.head == ["{head}"]:
            found["head"] = "head"
        return found

    @property
    def is_of_generated(self) -> bool:
        """Whether it means positions of generated tokens."""
        return isinstance(self.pos, Phase) and self.pos.phase == "generated"

    def one_layer_only(self, what: str, *loc: str | int) -> list[InitErrorDetails]:
        """A finding, if `at` means several layers where `what` takes one; the site stands at `loc`."""
        if not self.has_layer_axis:
            return []
        message = "means several layers, and {what} takes one; name one, as in {point}.5"
        return [problem((*loc, "at"), "point", message, what=what, point=self.point.name)]


def instead_of(point: Point) -> str:
    """The writable point next to one that is read only."""
    return {"k_rot": "k", "attn_scores": "attn_probs"}.get(point.name, "final_norm")


class Unembed(Body):
    """The logit lens: final norm and output matrix, then float32 log-softmax."""

    topk: int | None = Field(
        default=None, ge=1, lt=2**31, description="The k most likely tokens: `ids` and `logprobs`."
    )
    targets: (
        Annotated[list[TokenId], Field(min_length=1, max_length=MAX_TARGETS), AfterValidator(named_once)]
        | None
    ) = Field(default=None, description="The logprobs of these tokens.")
    vocabulary: Literal[True] | None = Field(default=None, description="The logprobs of all tokens.")

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise PydanticCustomError("unembed", "must have exactly one of topk, targets and vocabulary")
        return self


class Project(Body):
    """The dot product with a direction of the same width, or with each of a matrix of them."""

    project: Ref
    matrix: bool = Field(
        default=False,
        description="Whether `project` is a matrix, [directions, width]: the last axis is then that of its "
        "rows, `direction`. So is the encoder of a sparse autoencoder read.",
    )


class LogitLens(Body):
    """What the residual stream would predict if the model ended here."""

    unembed: Unembed


_REDUCE_WORDS = form(Literal["none", "mean", "norm"])
_REDUCE_BY_KEY = {"project": form(Project), "unembed": form(LogitLens)}


def _form_of_reduce(value: object) -> TypeAdapter[Any] | None:
    return _REDUCE_WORDS if isinstance(value, str) else by_key(_REDUCE_BY_KEY, value)


Reduce = Annotated[
    Literal["none", "mean", "norm"] | Project | LogitLens,
    one_of(_form_of_reduce, 'must be "none", "mean", "norm", or an object with either project or unembed'),
]


class Read(Site):
    """A value to read. Its axes: layers (where several are meant), positions, heads, units."""

    reduce: Reduce = Field(
        default="none",
        description="`mean`: over positions. `norm`: Euclidean, over the last axis. `project`: the dot "
        "product with a direction, or with each row of a matrix. `unembed`: the logit lens, at points as "
        "wide as the residual stream.",
    )

    @model_validator(mode="after")
    def _lens_fits(self) -> Self:
        if not isinstance(self.reduce, LogitLens):
            return self
        loc = ("reduce", "unembed")
        if self.point.width != "residual":
            message = "needs a point as wide as the residual stream, and {point} is not; read resid_post, say"
            raise located(problem(loc, "unembed", message, point=self.point.name))
        if self.point.name == "final_norm":
            message = "would apply the final norm twice; read resid_post of the last layer, or lm_head"
            raise located(problem(loc, "unembed", message))
        if self.unit is not None:
            message = "does not fit: the logit lens takes whole vectors; leave it out"
            raise located(problem(("unit",), "unembed", message))
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tensors that it gives, where they are two."""
        lens = isinstance(self.reduce, LogitLens) and self.reduce.unembed.topk is not None
        return ("ids", "logprobs") if lens else ()

    def refs(self) -> list[Use]:
        """What it takes from elsewhere."""
        if isinstance(self.reduce, Project):
            return [Use(("reduce", "project"), target_of(self.reduce.project))]
        return []
