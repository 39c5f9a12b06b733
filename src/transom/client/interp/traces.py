"""A trace: one run of a model, written down as the papers say it, and carried out later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from transom.client.interp.values import Given, Output
from transom.errors import InvalidRequest
from transom.schema.points import PointRefused, parse_site_name

R_co = TypeVar("R_co", covariant=True)

Input: TypeAlias = "str | Sequence[int] | Sequence[Mapping[str, Any]] | Mapping[str, Any]"
"""A text, token ids, messages, or an input as plans spell it."""

Pos: TypeAlias = "str | int | Sequence[int] | Mapping[str, Any]"
"""Positions as plans spell them: `all`, `last`, a number, numbers, `{"match": "Paris"}`, …."""

Reduction = Literal["none", "mean", "norm"]

Places = Literal["all"] | Sequence[int]


class Runs(Protocol[R_co]):
    """What carries traces out: a model."""

    def plan(self, *, seed: int = 0, **outputs: Any) -> dict[str, Any]:  # noqa: ANN401
        """The plan of them."""
        ...

    def run(self, *, seed: int = 0, **outputs: Any) -> R_co:  # noqa: ANN401
        """What comes back of it."""
        ...


@dataclass(frozen=True, slots=True)
class Metric:
    """One number that a trace's predictions give, of which gradients are taken."""

    spec: Mapping[str, Any]


def logit_diff(first: int, second: int, pos: int = -1) -> Metric:
    """How much higher the logit of the first token is than that of the second; both by id."""
    return Metric({"logit_diff": [first, second], "pos": pos})


def logprob(token: int, pos: int = -1) -> Metric:
    """The log-probability of a token, in nats."""
    return Metric({"logprob": token, "pos": pos})


def kl(other: Trace[Any], pos: int = -1) -> Metric:
    """The Kullback-Leibler divergence from another trace's prediction, which is held fixed."""
    return Metric({"kl": other, "pos": pos})


@dataclass(frozen=True, slots=True, eq=False)
class Trace(Generic[R_co]):
    """One run of a model: its input, what is read, what is written. Get one from `model.trace(…)`.

    A trace is never changed; each method gives another one. Names of points are those of
    docs/reference/plans.md (`resid_post.5`, `resid_post.*`) or TransformerLens's. `pos`, `head` and `unit`
    choose positions, heads and places of the last axis; left out, all are meant.

    `trace["name"]` is what it reads by that name, as a value for other traces of the same plan.
    """

    model: Runs[R_co]
    input: Input
    outputs: tuple[str, ...] = ()
    parts: Mapping[str, Any] = field(default_factory=dict)
    axes: Mapping[str, Places] | None = None
    """Of its sweep."""

    def read(
        self,
        at: str,
        *,
        name: str | None = None,
        pos: Pos = "all",
        head: Sequence[int | str] | int | None = None,
        unit: Sequence[int] | None = None,
        reduce: Reduction | Mapping[str, Any] = "none",
    ) -> Trace[R_co]:
        """Read a value. It is called by its point and layer (`resid_post_5`) unless `name` says otherwise.

        `reduce` is `mean` over positions or `norm` along the last axis; see also `project` and `lens`.
        """
        site = _site(at, pos, head, unit) | ({} if reduce == "none" else {"reduce": reduce})
        return self._reading(name or name_of(at), site)

    def project(
        self,
        at: str,
        direction: Given,
        *,
        name: str | None = None,
        pos: Pos = "all",
        head: Sequence[int | str] | int | None = None,
    ) -> Trace[R_co]:
        """Read the dot product of a value with a direction of the same width."""
        return self.read(at, name=name, pos=pos, head=head, reduce={"project": direction})

    def lens(
        self,
        at: str = "resid_post.*",
        *,
        topk: int | None = None,
        targets: Sequence[int] | None = None,
        name: str = "lens",
        pos: Pos = "last",
    ) -> Trace[R_co]:
        """Read what the stream would predict if the model ended there: the `topk` likeliest, or `targets`."""
        asked = {"topk": topk, "targets": None if targets is None else list(targets)}
        kept = {key: value for key, value in asked.items() if value is not None}
        return self.read(at, name=name, pos=pos, reduce={"unembed": kept})

    def logits(self, tokens: Sequence[int], *, name: str = "logits", pos: Pos = "last") -> Trace[R_co]:
        """Read the logits of some tokens, by id; their axis is `token`, in this order."""
        return self.read("lm_head", name=name, pos=pos, unit=tokens)

    def write(
        self,
        at: str,
        op: str,
        value: Given | Mapping[str, Any] | float | None = None,
        *,
        scale: float | None = None,
        pos: Pos = "all",
        head: Sequence[int | str] | int | None = None,
        unit: Sequence[int] | None = None,
    ) -> Trace[R_co]:
        """Change a value by an operation of plans; the methods below are shorthands for this."""
        change = _site(at, pos, head, unit) | {"op": op}
        change |= {} if value is None else {"value": value}
        change |= {} if scale is None else {"scale": scale}
        return replace(self, parts={**self.parts, "write": [*self.parts.get("write", ()), change]})

    def patch(self, at: str, *, source: Trace[Any], **site: Any) -> Trace[R_co]:  # noqa: ANN401
        """Take over what another trace has at the very same site."""
        return self.write(at, "swap", {"run": source}, **site)

    def set(self, at: str, value: Given | float, **site: Any) -> Trace[R_co]:  # noqa: ANN401
        """Put another value in its place."""
        return self.write(at, "set", value, **site)

    def add(self, at: str, value: Given | float, *, scale: float = 1.0, **site: Any) -> Trace[R_co]:  # noqa: ANN401
        """Add a value times `scale`."""
        return self.write(at, "add", value, scale=scale, **site)

    def zero(self, at: str, **site: Any) -> Trace[R_co]:  # noqa: ANN401
        """Make it 0."""
        return self.write(at, "zero", **site)

    def mean(self, at: str, value: Given, **site: Any) -> Trace[R_co]:  # noqa: ANN401
        """Put a mean in its place: a value without an axis of positions."""
        return self.write(at, "mean", value, **site)

    def noise(self, at: str, scale: float, **site: Any) -> Trace[R_co]:  # noqa: ANN401
        """Add Gaussian noise of the standard deviation `scale`, drawn from the plan's seed."""
        return self.write(at, "noise", scale=scale, **site)

    def project_out(self, at: str, direction: Given, **site: Any) -> Trace[R_co]:  # noqa: ANN401
        """Remove the component along a direction."""
        return self.write(at, "project_out", direction, **site)

    def scale_along(self, at: str, direction: Given, scale: float, **site: Any) -> Trace[R_co]:  # noqa: ANN401
        """Multiply the component along a direction by `scale`."""
        return self.write(at, "scale_along", direction, scale=scale, **site)

    def clamp(self, at: str, direction: Given, scale: float, **site: Any) -> Trace[R_co]:  # noqa: ANN401
        """Make the component along a direction `scale`."""
        return self.write(at, "clamp", direction, scale=scale, **site)

    def generate(self, max_tokens: int, **options: Any) -> Trace[R_co]:  # noqa: ANN401
        """Continue the input; ids come back as `tokens`. Options are a plan's, such as `temperature`."""
        offered = ("tokens",) + (("logprobs",) if options.get("logprobs") is not None else ())
        made = {"max_tokens": max_tokens, **options}
        return replace(
            self, parts={**self.parts, "generate": made}, outputs=self._with_outputs("generate", *offered)
        )

    def grad(
        self,
        at: str,
        *,
        of: Metric,
        mode: Literal["grad", "grad_x_input"] | Mapping[str, Any] = "grad",
        name: str | None = None,
        pos: Pos = "all",
        head: Sequence[int | str] | int | None = None,
    ) -> Trace[R_co]:
        """Gradient of a metric with respect to a value.

        `mode` is `grad`, `grad_x_input`, `{"grad_x_delta": trace}` for the product with what that trace has
        more there, or `{"integrated": steps, "baseline": trace}`. Gradients of one trace have one metric and
        one mode.

        Raises:
            InvalidRequest: another gradient of this trace has another metric or mode.
        """
        asked: dict[str, Any] = {"of": of.spec, "mode": mode}
        known = self.parts.get("grad", {})
        if known and {key: known[key] for key in asked} != asked:
            raise InvalidRequest(
                "A trace has gradients of one metric and one mode; trace once more.", param="of"
            )
        called = name or f"grad_{name_of(at)}"
        wrt = {**known.get("wrt", {}), called: _site(at, pos, head, None)}
        return replace(
            self,
            parts={**self.parts, "grad": {**asked, "wrt": wrt}},
            outputs=self._with_outputs("name", called),
        )

    def sweep(
        self, *, layer: Places | None = None, pos: Places | None = None, head: Places | None = None
    ) -> Trace[R_co]:
        """Repeat the trace for every combination; its sites say where, as in `resid_post.{layer}`.

        Write `pos="{pos}"` and `head=["{head}"]` at them. What comes back has the axes `sweep_layer`,
        `sweep_pos` and `sweep_head` in front.
        """
        axes = {"layer": layer, "pos": pos, "head": head}
        return replace(self, axes={axis: places for axis, places in axes.items() if places is not None})

    def __getitem__(self, name: str) -> Output:
        if name not in self.outputs:
            raise KeyError(f"this trace reads no {name}; it has {', '.join(self.outputs) or 'nothing'}")
        return Output(self, name)

    def plan(self, seed: int = 0) -> dict[str, Any]:
        """The plan of this trace, as it would be sent: plain data. The run is called `trace`."""
        return self.model.plan(seed=seed, trace=self)

    def run(self, seed: int = 0) -> R_co:
        """Carry it out. Several traces in one plan: `model.run(clean=…, patched=…)`.

        Raises:
            TransomError: the server refused; `param` names the field of the plan.
        """
        return self.model.run(seed=seed, trace=self)

    def _reading(self, name: str, site: Mapping[str, Any]) -> Trace[R_co]:
        read = {**self.parts.get("read", {}), name: site}
        return replace(self, parts={**self.parts, "read": read}, outputs=self._with_outputs("name", name))

    def _with_outputs(self, param: str, *names: str) -> tuple[str, ...]:
        for name in names:
            if name in self.outputs:
                message = f"This trace has a {name} already; give this one a name of its own."
                raise InvalidRequest(message, param=param)
        return (*self.outputs, *names)


def name_of(at: str) -> str:
    """What a value is called where nobody says: by its point and layers, such as `resid_post_5`.

    Raises:
        InvalidRequest: there is no such point; the message names the nearest.
    """
    try:
        name = parse_site_name(at)
    except PointRefused as refused:
        raise InvalidRequest(f"The point is refused: {refused}", param="at") from refused
    match name.layers:
        case int(layer):
            return f"{name.point}_{layer}"
        case (first, last):
            return f"{name.point}_{first}_{last}"
        case _:
            return name.point


def _site(
    at: str, pos: Pos, head: Sequence[int | str] | int | None, unit: Sequence[int] | None
) -> dict[str, Any]:
    name_of(at)
    site: dict[str, Any] = {"at": at} | ({} if pos == "all" else {"pos": pos})
    site |= {} if head is None else {"head": [head] if isinstance(head, int) else list(head)}
    return site | ({} if unit is None else {"unit": list(unit)})
