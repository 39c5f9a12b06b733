"""Gradients: of one number that a run's predictions or values give, with respect to values inside it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, model_validator
from pydantic_core import InitErrorDetails

from transom.schema.plans.refs import Ref, Use, WholeRun, target_of
from transom.schema.plans.sites import Position, Site, instead_of
from transom.schema.plans.values import Name, by_key, form, located, one_of, pair, problem
from transom.schema.wire import Body, TokenId

MAX_GRADIENTS = 64
MAX_STEPS = 64

_Pos = Annotated[
    Position,
    Field(description="Whose prediction; negative counts from the prompt's end. Left out, the last."),
]


class LogitDiff(Body):
    """How much higher the logit of the first token is than that of the second."""

    logit_diff: Annotated[tuple[TokenId, TokenId], pair("the ids of two tokens")]
    pos: _Pos = -1

    @model_validator(mode="after")
    def _tokens_differ(self) -> Self:
        if self.logit_diff[0] == self.logit_diff[1]:
            message = "is the first token once more, so that the difference is always 0; name another"
            raise located(problem(("logit_diff", 1), "metric", message))
        return self


class Logprob(Body):
    """The log-probability of a token, in nats."""

    logprob: TokenId
    pos: _Pos = -1


class Divergence(Body):
    """The Kullback-Leibler divergence of this run's prediction and another run's, in nats."""

    kl: Name = Field(description="The other run, whose prediction is held fixed.")
    pos: _Pos = -1


class Dot(Body):
    """The dot product of the value at a site with a tensor."""

    dot: Annotated[tuple[Site, Ref], pair("a site and a reference")]

    @model_validator(mode="after")
    def _is_one_number(self) -> Self:
        if found := self.dot[0].one_layer_only("a metric", "dot", 0):
            raise located(*found)
        return self


_METRICS: dict[str, TypeAdapter[Any]] = {
    "logit_diff": form(LogitDiff),
    "logprob": form(Logprob),
    "kl": form(Divergence),
    "dot": form(Dot),
}

Metric = Annotated[
    LogitDiff | Logprob | Divergence | Dot,
    one_of(
        lambda value: by_key(_METRICS, value), "must be an object with one of logit_diff, logprob, kl and dot"
    ),
]


class GradDelta(Body):
    """The gradient times what another run has more at the site: attribution patching."""

    grad_x_delta: Name = Field(description="The other run.")


class Integrated(Body):
    """Integrated gradients: the mean gradient on the way from a baseline, times the way."""

    integrated: int = Field(ge=1, le=MAX_STEPS, description="In how many steps.")
    baseline: Name | None = Field(
        default=None, description="The run at the beginning of the way. Left out, 0."
    )


_WORDS = form(Literal["grad", "grad_x_input"])
_MODES: dict[str, TypeAdapter[Any]] = {
    "grad_x_delta": form(GradDelta),
    "integrated": form(Integrated),
}

Mode = Annotated[
    Literal["grad", "grad_x_input"] | GradDelta | Integrated,
    one_of(
        lambda value: _WORDS if isinstance(value, str) else by_key(_MODES, value),
        'must be "grad", "grad_x_input", or an object with grad_x_delta or integrated',
    ),
]


class Grad(Body):
    """Gradients of a metric; each is offered as `run.name`, like what is read."""

    of: Metric
    wrt: dict[Name, Site] = Field(
        min_length=1, max_length=MAX_GRADIENTS, description="With respect to what, by name."
    )
    mode: Mode = "grad"

    @model_validator(mode="after")
    def _can_be_differentiated(self) -> Self:
        found = [finding for name, site in self.wrt.items() for finding in self._about(name, site)]
        if found:
            raise located(*found)
        return self

    def _about(self, name: str, site: Site) -> list[InitErrorDetails]:
        if not site.point.differentiable:
            message = "is refused: {point} is read only, and has no gradient; choose {instead}"
            context = {"point": site.point.name, "instead": instead_of(site.point)}
            return [problem(("wrt", name, "at"), "point", message, **context)]
        if isinstance(self.mode, Integrated):
            # The way from a baseline is gone at one layer; what several layers hold depends on each other.
            return site.one_layer_only("an integrated gradient", "wrt", name)
        return []

    def refs(self) -> list[Use]:
        """What it takes from elsewhere."""
        found: list[Use] = []
        if isinstance(self.of, Divergence):
            found.append(Use(("of", "kl"), WholeRun(self.of.kl), "run"))
        if isinstance(self.of, Dot):
            found.append(Use(("of", "dot", 1), target_of(self.of.dot[1])))
        if isinstance(self.mode, GradDelta):
            found.append(Use(("mode", "grad_x_delta"), WholeRun(self.mode.grad_x_delta), "run"))
        if isinstance(self.mode, Integrated) and self.mode.baseline is not None:
            found.append(Use(("mode", "baseline"), WholeRun(self.mode.baseline), "run"))
        return found
