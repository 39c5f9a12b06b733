"""Gradients inside a model: by torch, over the plain modules, one run at a time and beside the step loop.

The kernels that serve have no backward pass. So the first gradient loads the model root once more, in float32
and with transformers' own modules; a gradient costs a forward and a backward over its prompt, whoever else is
served. It depends on the prompt alone: each is computed with the same shapes, in company or not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from transom.engine.attention import floats
from transom.engine.places import Boundaries, find_boundaries, hooked
from transom.errors import PlanFailed
from transom.internals.board import Floats, Where
from transom.internals.compile import Shapes, assembled, site_of
from transom.internals.taps import Site
from transom.internals.values import Value
from transom.schema.program import GradSpec, MetricSpec, RunSpec, WrtSpec


@dataclass
class _Seen:
    """What a forward had at the places that are asked about."""

    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    """[vocabulary], of the metric's position."""
    tensors: dict[Where, Tensor] = field(default_factory=dict)
    """[1, rows, width] each, with a graph behind it."""


class Differentiator:
    """Computes gradients on a model root.

    Args:
        root: of the model; loaded when the first gradient is asked for.
        shapes: of the model's points.
    """

    def __init__(self, root: Path, shapes: Shapes) -> None:
        self._root = root
        self._shapes = shapes
        self._is_wanted: Callable[[], bool] = lambda: True

    @cached_property
    def _model(self) -> nn.Module:
        self._check_memory()
        model: nn.Module = AutoModelForCausalLM.from_pretrained(
            self._root, dtype=torch.float32, attn_implementation="eager", local_files_only=True
        )
        model.requires_grad_(requires_grad=False)
        return model.train(mode=False)

    def _check_memory(self) -> None:
        """Pass if there is room for a second copy of the model, with as much again to work in.

        Raises:
            PlanFailed: there is not; to try would end the engine, and with it everybody's answers.
        """
        stored = sum(file.stat().st_size for file in self._root.glob("*.safetensors"))
        config = json.loads((self._root / "config.json").read_text(encoding="utf-8"))
        dtype = config.get("dtype", "float32")
        needed = 2 * stored * (1 if dtype == "float32" else 2)
        available = psutil.virtual_memory().available
        if needed > available:
            raise PlanFailed(
                f"gradients need {needed >> 20} MiB of memory beside the model; {available >> 20} are free"
            )

    @cached_property
    def _boundaries(self) -> Boundaries:
        return find_boundaries(self._model)  # type: ignore[arg-type]

    def gradients(
        self, run: RunSpec, values: Mapping[str, Value], is_wanted: Callable[[], bool] = lambda: True
    ) -> dict[str, Value]:
        """The gradients that a run asks for, by the names of their values.

        Args:
            run: that asks.
            values: that it refers to.
            is_wanted: asked before each forward; many of them may be needed.

        Raises:
            PlanFailed: a value that the metric needs does not fit, or a gradient is no number.
        """
        spec = run.grad
        if spec is None:
            return {}
        self._is_wanted = is_wanted
        if spec.mode == "integrated":
            return {f"{run.name}.{wrt.name}": self._integrated(run, spec, wrt, values) for wrt in spec.wrt}
        sites = {wrt.name: self._sites(wrt) for wrt in spec.wrt}
        wanted = {site.where for found in sites.values() for site in found}
        seen = self._forward(run, spec.metric, wanted)
        self._metric(spec.metric, seen, values).backward()  # type: ignore[no-untyped-call]
        return {
            f"{run.name}.{wrt.name}": self._value(
                wrt, [self._of(site, seen, spec, wrt, values, i) for i, site in enumerate(sites[wrt.name])]
            )
            for wrt in spec.wrt
        }

    def _sites(self, wrt: WrtSpec) -> list[Site]:
        return [site_of(site, self._shapes) for site in wrt.sites]

    def _of(
        self, site: Site, seen: _Seen, spec: GradSpec, wrt: WrtSpec, values: Mapping[str, Value], index: int
    ) -> Floats:
        """The gradient at one site [positions, groups, width], times what the mode says."""
        tensor = seen.tensors[site.where]
        gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        found = _chosen(site, gradient)
        if spec.mode == "grad":
            return found
        own = _chosen(site, tensor.detach())
        if spec.mode == "grad_x_input":
            return found * own
        return found * (_fitting(values[wrt.others[index]], own) - own)

    def _integrated(self, run: RunSpec, spec: GradSpec, wrt: WrtSpec, values: Mapping[str, Value]) -> Value:
        """The mean gradient on the way from the baseline, times the way (Sundararajan and others 2017)."""
        (site,) = self._sites(wrt)
        own = self._own(run, spec, site)
        baseline = _fitting(values[wrt.others[0]], own) if wrt.others else np.zeros_like(own)
        total = np.zeros(own.shape, np.float64)
        for step in range(spec.steps):
            # The middle of each step: the error falls with the square of their number.
            there = baseline + np.float32((step + 0.5) / spec.steps) * (own - baseline)
            total += self._slope(run, spec, values, site, there)
        return self._value(wrt, [((own - baseline) * (total / spec.steps)).astype(np.float32)])

    # Apart, so that no graph outlives the forward and backward that it belongs to.

    def _own(self, run: RunSpec, spec: GradSpec, site: Site) -> Floats:
        """What a run has at a site."""
        seen = self._forward(run, spec.metric, {site.where})
        return _chosen(site, seen.tensors[site.where].detach()).copy()

    def _slope(
        self, run: RunSpec, spec: GradSpec, values: Mapping[str, Value], site: Site, there: Floats
    ) -> Floats:
        """The gradient at a site where something else is there."""
        seen = self._forward(run, spec.metric, {site.where}, (site, there))
        self._metric(spec.metric, seen, values).backward()  # type: ignore[no-untyped-call]
        gradient = seen.tensors[site.where].grad
        return np.zeros_like(there) if gradient is None else _chosen(site, gradient).copy()

    def _value(self, wrt: WrtSpec, parts: Sequence[Floats]) -> Value:
        if not all(np.isfinite(part).all() for part in parts):
            raise PlanFailed(f"the gradient {wrt.name} is no number")
        return assembled(np.stack(parts), wrt)

    def _forward(
        self,
        run: RunSpec,
        metric: MetricSpec,
        wanted: set[Where],
        replaced: tuple[Site, Floats] | None = None,
    ) -> _Seen:
        if not self._is_wanted():
            raise PlanFailed("nobody waits for it")
        seen = _Seen()
        if metric.site is not None:
            wanted = wanted | {site_of(metric.site, self._shapes).where}
        ids = torch.tensor([run.token_ids], dtype=torch.long)
        with self._hooked(seen, wanted, replaced):
            output = self._model(
                input_ids=ids, use_cache=False, logits_to_keep=torch.tensor([metric.position])
            )
        seen.logits = output.logits[0, 0]
        return seen

    @contextmanager
    def _hooked(
        self, seen: _Seen, wanted: set[Where], replaced: tuple[Site, Floats] | None
    ) -> Iterator[None]:
        """Keep what is at the places, and begin the graph at the embeddings."""
        handles = [self._begin_graph()]
        for where in wanted:
            boundary = self._boundaries.found[where]
            module = self._model.get_submodule(boundary.module)
            keep = _Keep(seen, where, replaced)
            handles.append(hooked(module, keep, is_input=boundary.is_input))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin_graph(self) -> torch.utils.hooks.RemovableHandle:
        embedding = self._model.get_submodule(self._boundaries.found[Where("embeddings")].module)
        return embedding.register_forward_hook(
            lambda _module, _args, output: output.detach().requires_grad_()
        )

    def _metric(self, spec: MetricSpec, seen: _Seen, values: Mapping[str, Value]) -> Tensor:
        match spec.kind:
            case "logit_diff":
                return seen.logits[spec.tokens[0]] - seen.logits[spec.tokens[1]]
            case "logprob":
                return torch.log_softmax(seen.logits, -1)[spec.tokens[0]]
            case "kl":
                other = torch.from_numpy(np.array(values[spec.value].array)).reshape(-1)
                fixed = torch.log_softmax(other, -1)
                return (fixed.exp() * (fixed - torch.log_softmax(seen.logits, -1))).sum()
            case "dot":
                return self._dot(spec, seen, values)

    def _dot(self, spec: MetricSpec, seen: _Seen, values: Mapping[str, Value]) -> Tensor:
        assert spec.site is not None  # noqa: S101  # a dot has one
        site = site_of(spec.site, self._shapes)
        rows = seen.tensors[site.where][0, list(site.positions)]
        chosen = rows if site.columns.index is None else rows[:, torch.from_numpy(site.columns.index)]
        own = chosen.reshape(len(site.positions), site.columns.groups, -1)
        other = _fitting(values[spec.value], floats(own.detach()))
        return (own * torch.from_numpy(np.array(other))).sum()


class _Keep:
    """Keeps what passes a place; perhaps with something else at some positions of it."""

    def __init__(self, seen: _Seen, where: Where, replaced: tuple[Site, Floats] | None) -> None:
        self._seen = seen
        self._where = where
        self._replaced = replaced if replaced is not None and replaced[0].where == where else None

    def __call__(self, tensor: Tensor) -> Tensor:
        if self._replaced is not None:
            tensor = _with(tensor, *self._replaced)
        # A leaf of its own: whatever uses the same tensor elsewhere is no part of this place.
        kept = tensor * 1.0
        kept.retain_grad()
        self._seen.tensors[self._where] = kept
        return kept


def _with(tensor: Tensor, site: Site, values: Floats) -> Tensor:
    """The tensor with other numbers at a site."""
    rows = floats(tensor.detach().reshape(-1, tensor.shape[-1])).copy()
    chosen = rows[list(site.positions)]
    site.columns.put(chosen, values)
    rows[list(site.positions)] = chosen
    return torch.from_numpy(rows).view(tensor.shape).requires_grad_()


def _chosen(site: Site, tensor: Tensor) -> Floats:
    """What a tensor [1, rows, width] has at a site: [positions, groups, width]."""
    rows = floats(tensor.reshape(-1, tensor.shape[-1]))[list(site.positions)]
    return site.columns.of(rows)


def _fitting(value: Value, own: Floats) -> Floats:
    """A value as one of the same shape.

    Raises:
        PlanFailed: it has another number of numbers.
    """
    array = np.asarray(value.array, np.float32)
    try:
        return array.reshape(own.shape) if array.size == own.size else np.broadcast_to(array, own.shape)
    except ValueError:
        raise PlanFailed(
            f"a value of shape {list(array.shape)} does not fit a site of shape {list(own.shape)}"
        ) from None
