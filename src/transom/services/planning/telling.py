"""What a resolved plan tells, at most, of each place inside the model: counted before it runs.

What is read and only used inside the plan is told no further than what is made of it. So the numbers that
are returned are followed back: through what is derived, through what is written and changes what is read
later, to the places where the values were read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter

from transom.schema.changes import GLOBAL, SiteSpec
from transom.schema.matrices import at_first, place
from transom.schema.program import GradSpec, ModelPoint, RunSpec, parts_of
from transom.services.planning.forms import Form
from transom.services.planning.resolved import Resolved

_ATTENTION = frozenset({"attn_in", "q", "q_rot", "k", "value", "attn_probs", "z"})
_NEURONS = frozenset({"mlp_in", "mlp_pre", "mlp_pre_linear", "mlp_act"})
_OUTPUTS = frozenset({"attn_out", "attn_out_post", "resid_mid", "mlp_out", "mlp_out_post"})


def numbers_told(
    resolved: Resolved, forms: Mapping[str, Form], points: Sequence[ModelPoint], layers: int
) -> dict[str, int]:
    """How many numbers are told of each place, at most; places of which none is are left out.

    Args:
        resolved: a plan.
        forms: of all its values.
        points: of the model.
        layers: of the model.
    """
    return _Teller(resolved, forms, points, layers).numbers()


class _Teller:
    """See `numbers_told`."""

    def __init__(
        self, resolved: Resolved, forms: Mapping[str, Form], points: Sequence[ModelPoint], layers: int
    ) -> None:
        self._resolved = resolved
        self._widths = {
            (point.name, layer): (point.heads, point.width) for point in points for layer in point.layers
        }
        self._layers = layers
        self._told = _told(resolved, forms)

    def numbers(self) -> dict[str, int]:
        found: Counter[str] = Counter()
        for run in self._resolved.runs:
            found.update(self._of_run(run))
        return {name: count for name, count in found.items() if count}

    def _of_run(self, run: RunSpec) -> Counter[str]:
        read = self._read(run)
        found: Counter[str] = Counter()
        for site, count in read.items():
            found[self._place(site)] += count
            found[at_first(self._place(site))] += self._mixing_nothing(run, site, count)
        found.update(self._seen_through(run, read))
        for write in run.writes:
            # Of what is zero, and of what another run has, nobody learns anything by writing it.
            if any(read.values()) and write.op != "zero" and not write.is_borrowed:
                found[self._place(write.site)] += self._size(run, write.site)
        if run.grad is not None:
            found.update(self._of_gradients(run, run.grad))
        return found

    def _read(self, run: RunSpec) -> dict[SiteSpec, int]:
        """Sites, each with how many numbers of it are told, by however many reads."""
        found: dict[SiteSpec, int] = {}
        for spec in run.reads:
            told = sum(self._told[name] for name in parts_of(f"{run.name}.{spec.name}"))
            for site in spec.sites:
                more = found.get(site, 0) - (-told // len(spec.sites))
                found[site] = min(more, self._size(run, site))
        return found

    def _mixing_nothing(self, run: RunSpec, site: SiteSpec, count: int) -> int:
        """How many of them are of positions that attend by a pattern that is known: the first sees itself."""
        layer = site.layer + (site.point == "resid_post")
        if any(write.site.point == "attn_probs" and write.site.layer == layer for write in run.writes):
            return count
        return -(-count // len(site.positions)) if site.positions and site.positions[0] == 0 else 0

    def _seen_through(self, run: RunSpec, read: Mapping[SiteSpec, int]) -> dict[str, int]:
        """What the stream tells of an earlier value, in a run in which something is written.

        A write changes what one part adds to the stream, or takes the parts away that would hide it.
        """
        found: dict[str, int] = {}
        for write in run.writes:
            layer = write.site.layer
            told = max((count for site, count in read.items() if _is_behind(site, layer)), default=0)
            for point in _hidden(write.site.point):
                name = place(point, layer, self._layers)
                found[name] = max(found.get(name, 0), told)
        return found

    def _of_gradients(self, run: RunSpec, grad: GradSpec) -> Counter[str]:
        found: Counter[str] = Counter()
        for wrt in grad.wrt:
            told = self._told[f"{run.name}.{wrt.name}"]
            for site in wrt.sites:
                found[self._place(site, gradient=True)] += -(-told // len(wrt.sites))
        if grad.metric.site is not None and found.total():
            # The metric says what the gradient is there.
            found[self._place(grad.metric.site, gradient=True)] += self._size(run, grad.metric.site)
        return found

    def _place(self, site: SiteSpec, *, gradient: bool = False) -> str:
        return place(site.point, site.layer, self._layers, "gradient" if gradient else "value")

    def _size(self, run: RunSpec, site: SiteSpec) -> int:
        heads, width = self._widths[site.point, site.layer]
        width = width or len(run.token_ids) + run.sampling.max_tokens
        return len(site.positions) * (len(site.heads) or heads) * (len(site.units) or width)


def _is_behind(site: SiteSpec, layer: int) -> bool:
    """Whether a site is of the stream, in a layer or later."""
    of_stream = site.point in ("resid_mid", "resid_post", "final_norm", "resid_pre")
    return of_stream and (site.layer == GLOBAL or site.layer >= layer)


def _hidden(point: str) -> tuple[str, ...]:
    """What the stream tells of, once something is written at a point of the layer."""
    if point in _ATTENTION:
        return ("attn_out",)
    if point in _NEURONS:
        return ("mlp_out",)
    return ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post") if point in _OUTPUTS else ()


def _told(resolved: Resolved, forms: Mapping[str, Form]) -> Counter[str]:
    """How many numbers of each value are told, at most."""
    inputs = {f"run {run.name}": [*run.needs, *run.grad_needs] for run in resolved.runs}
    inputs |= {f"value {spec.name}": list(spec.of) for spec in resolved.derive}
    outputs = {
        f"run {run.name}": [part for name in _outputs(run) for part in parts_of(f"{run.name}.{name}")]
        for run in resolved.runs
    }
    outputs |= {f"value {spec.name}": [*parts_of(spec.name)] for spec in resolved.derive}
    makers = {value: node for node, values in outputs.items() for value in values}
    needed = {node: {makers[value] for value in values if value in makers} for node, values in inputs.items()}
    told: Counter[str] = Counter()
    for name in {part for ref in resolved.returns for part in parts_of(ref) if part in forms}:
        told[name] = forms[name].numbers
    for node in reversed(list(TopologicalSorter(needed).static_order())):
        out = sum(told[value] for value in outputs[node])
        for value in inputs[node]:
            if value in forms:
                told[value] = min(forms[value].numbers, told[value] + out)
    return told


def _outputs(run: RunSpec) -> list[str]:
    wrt = run.grad.wrt if run.grad is not None else ()
    return [*(read.name for read in run.reads), *(each.name for each in wrt)]
