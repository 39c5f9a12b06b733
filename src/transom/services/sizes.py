"""How large the values of a resolved plan can become: known before it runs, and charged after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from transom.errors import InvalidRequest
from transom.schema.program import ModelPoint, ReadSpec, RunSpec, parts_of
from transom.services.fitting import check_value, site_form
from transom.services.forms import Form, derived_forms, fitted
from transom.services.positions import Line
from transom.services.resolved import Resolved

MAX_BYTES = 1 << 30
"""Most bytes of all values of one plan together; they are in memory at once."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a plan makes at most."""

    tokens: int
    """Of all prompts, and generated."""
    rows: int
    """Rows of forwards."""
    returned: int
    """Bytes of what is returned."""
    kept: int
    """Bytes of all values."""
    vectors: int
    """Numbers of logprobs over the vocabulary that are told."""
    forms: Mapping[str, Form] = field(repr=False)
    """Of all values, by name."""


def sizes_of(resolved: Resolved, points: Sequence[ModelPoint], vocabulary: int) -> Sizes:
    """What a plan makes at most.

    Raises:
        InvalidRequest: values do not fit each other, or all of them are too large.
    """
    forms = forms_of(resolved, points, vocabulary)
    for run in resolved.runs:
        _check_taken(run, resolved.lines[run.name], points, forms)
    kept = 4 * sum(form.numbers for form in forms.values()) + _captured(resolved, points)
    if kept > MAX_BYTES:
        raise InvalidRequest(
            f"The values of this plan take up to {kept} bytes; {MAX_BYTES} are kept at once. Read fewer "
            "positions, layers or units, reduce them, or send several plans.",
            param="runs",
            code="plan_too_large",
        )
    told = {name for ref in resolved.returns for name in parts_of(ref) if name in forms}
    return Sizes(
        tokens=sum(line.prompt + line.most for line in resolved.lines.values()),
        rows=sum(resolved.lines[run.name].end + _graded(run) for run in resolved.runs),
        returned=4 * sum(forms[name].numbers for name in told),
        kept=kept,
        vectors=sum(_told(run, forms) for run in resolved.runs),
        forms=forms,
    )


def forms_of(resolved: Resolved, points: Sequence[ModelPoint], vocabulary: int) -> dict[str, Form]:
    """The forms of all values of a plan, by name.

    Raises:
        InvalidRequest: values do not fit each other.
    """
    forms = _forms(resolved, points, vocabulary)
    for spec in resolved.derive:
        forms |= derived_forms(spec, forms)
    return forms


def _graded(run: RunSpec) -> int:
    """Rows of forwards that the gradients of a run take; a backward is as much as two."""
    if run.grad is None:
        return 0
    times = 1 + run.grad.steps * len(run.grad.wrt) if run.grad.mode == "integrated" else 1
    return 3 * times * len(run.token_ids)


def _told(run: RunSpec, forms: Mapping[str, Form]) -> int:
    """How many logits or logprobs a run tells."""
    lenses = [read for read in run.reads if read.reduce == "unembed" and not read.name.startswith("_")]
    parts = [f"{run.name}.{read.name}" + (".logprobs" if read.unembed.topk else "") for read in lenses]
    logprobs = run.sampling.logprobs
    of_generated = 0 if logprobs is None else run.sampling.max_tokens * (1 + logprobs)
    return of_generated + sum(forms[part].numbers for part in parts)


def _check_taken(run: RunSpec, line: Line, points: Sequence[ModelPoint], forms: Mapping[str, Form]) -> None:
    """Pass a run to whose sites the values fit that it takes.

    Raises:
        InvalidRequest: one does not; names the field.
    """
    for index, write in enumerate(run.writes):
        if write.value:
            param = f"runs.{run.origin}.write.{index}.value"
            check_value(write, forms[write.value].shape, line, points, param)
    for read in run.reads:
        rows = site_form(read, line, points).shape
        if read.reduce == "project" and fitted(rows, forms[read.direction].shape) != rows:
            raise InvalidRequest(
                f"The direction has shape {list(forms[read.direction].shape)}; what is read has shape "
                f"{list(rows)}, and the direction has to fit its last axis.",
                param=f"runs.{run.origin}.read.{read.name}.reduce.project",
            )


def _captured(resolved: Resolved, points: Sequence[ModelPoint]) -> int:
    """Bytes of what is reduced or put together, before it is, and of what says which columns are meant."""
    total = 0
    for run in resolved.runs:
        for read in run.reads:
            whole = site_form(read, resolved.lines[run.name], points)
            total += 4 * whole.numbers * (read.reduce != "none" or read.layered)
            if read.sites[0].heads or read.sites[0].units:
                total += 8 * len(read.sites) * math.prod(whole.shape[1 + read.layered :])
    return total


def _forms(resolved: Resolved, points: Sequence[ModelPoint], vocabulary: int) -> dict[str, Form]:
    forms = {name: Form(tensor.shape, ("",) * len(tensor.shape)) for name, tensor in resolved.tensors.items()}
    for run in resolved.runs:
        most = run.sampling.max_tokens
        if most:
            steps = Form((most,), ("step",))
            forms |= {f"{run.name}.tokens": steps, f"{run.name}.logprobs": steps}
        for read in run.reads:
            form = _reduced(read, site_form(read, resolved.lines[run.name], points), vocabulary)
            parts = (".ids", ".logprobs") if read.reduce == "unembed" and read.unembed.topk else ("",)
            forms |= {f"{run.name}.{read.name}{part}": form for part in parts}
        for wrt in run.grad.wrt if run.grad is not None else ():
            site = ReadSpec(name=wrt.name, sites=wrt.sites, layered=wrt.layered)
            forms[f"{run.name}.{wrt.name}"] = site_form(site, resolved.lines[run.name], points)
    return forms


def _reduced(read: ReadSpec, whole: Form, vocabulary: int) -> Form:
    match read.reduce:
        case "mean":
            return whole.without("pos")
        case "norm" | "project":
            return Form(whole.shape[:-1], whole.axes[:-1])
        case "unembed":
            kept = read.unembed.topk or len(read.unembed.targets) or vocabulary
            last = "rank" if read.unembed.topk else "token"
            return Form((*whole.shape[:-1], kept), (*whole.axes[:-1], last))
        case _:
            return whole
