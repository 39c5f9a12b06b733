"""How large the values of a resolved plan can become: known before it runs, and charged after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from transom.errors import InvalidRequest
from transom.schema.program import SPILLED_FROM, DeriveSpec, ModelPoint, ReadSpec, RunSpec, parts_of
from transom.services.planning.fitting import check_value, site_form
from transom.services.planning.forms import Form, derived_forms, fitted
from transom.services.planning.positions import Line
from transom.services.planning.resolved import Resolved

MAX_BYTES = 1 << 30
"""Most bytes of one plan's values in memory at once."""

MAX_SPILLED = 8 << 30
"""Most bytes of what one plan reads on disk."""

SPILLS_ABOVE = 512 << 20
"""Bytes of what a plan reads, above which arrays of at least `SPILLED_FROM` bytes lie on disk."""


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
    """Bytes of all values that are in memory."""
    spilled: int
    """Bytes of those on disk."""
    vectors: int
    """Numbers of logprobs over the vocabulary that are told."""
    captured: int
    """Bytes of what is reduced, in memory before it is; `kept` counts them too."""
    looked: int
    """Rows that go through the output matrix."""
    told: Mapping[str, Form] = field(repr=False)
    """What is returned, by name."""
    forms: Mapping[str, Form] = field(repr=False)
    """Of all values, by name."""


def sizes_of(resolved: Resolved, points: Sequence[ModelPoint], vocabulary: int) -> Sizes:
    """What a plan makes at most.

    Raises:
        InvalidRequest: values do not fit each other, or all of them are too large.
    """
    forms = _forms(resolved, points, vocabulary)
    for run in resolved.runs:
        _check_taken(run, resolved.lines[run.name], points, forms)
    captured = _captured(resolved, points, forms)
    kept = 4 * sum(form.numbers for form in forms.values()) + captured.beside - captured.values
    for taken, most, where in ((kept, MAX_BYTES, "in memory"), (captured.spilled, MAX_SPILLED, "on disk")):
        if taken > most:
            raise InvalidRequest(
                f"The values of this plan take up to {taken} bytes {where}; {most} may be there. Read "
                "fewer positions, layers or units, reduce them, or send several plans.",
                param="runs",
                code="plan_too_large",
            )
    told = {name: forms[name] for ref in resolved.returns for name in parts_of(ref) if name in forms}
    return Sizes(
        tokens=sum(line.prompt + line.most for line in resolved.lines.values()),
        rows=sum(resolved.lines[run.name].end + run.graded for run in resolved.runs),
        returned=4 * sum(form.numbers for form in told.values()),
        kept=kept,
        spilled=captured.spilled,
        vectors=sum(_told(run, forms) for run in resolved.runs),
        captured=captured.beside,
        looked=sum(_looked(run, resolved.lines[run.name], points) for run in resolved.runs),
        told=told,
        forms=forms,
    )


def _told(run: RunSpec, forms: Mapping[str, Form]) -> int:
    """How many logits or logprobs a run tells."""
    lenses = [read for read in run.reads if read.reduce == "unembed" and not read.name.startswith("_")]
    parts = [f"{run.name}.{read.name}" + (".logprobs" if read.unembed.topk else "") for read in lenses]
    logprobs = run.sampling.logprobs
    of_generated = 0 if logprobs is None else run.sampling.max_tokens * (1 + logprobs)
    return of_generated + sum(forms[part].numbers for part in parts)


def _looked(run: RunSpec, line: Line, points: Sequence[ModelPoint]) -> int:
    """Rows of a run that go through the output matrix: of the tokens that it draws, and of its lenses."""
    lenses = [site_form(read, line, points) for read in run.reads if read.reduce == "unembed"]
    return run.sampling.max_tokens + sum(math.prod(whole.shape[:-1]) for whole in lenses)


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
        if (
            read.reduce == "project"
            and not read.is_matrix
            and fitted(rows, forms[read.direction].shape) != rows
        ):
            raise InvalidRequest(
                f"The direction has shape {list(forms[read.direction].shape)}; what is read has shape "
                f"{list(rows)}, and the direction has to fit its last axis.",
                param=f"runs.{run.origin}.read.{read.name}.reduce.project",
            )


@dataclass(frozen=True, slots=True)
class _Captured:
    """Bytes of what reads take."""

    beside: int
    """In memory, and no value: what is reduced is there whole before; and which columns are meant."""
    values: int
    """Of values that are on disk."""
    spilled: int
    """Of all that is on disk."""


def _captured(resolved: Resolved, points: Sequence[ModelPoint], forms: Mapping[str, Form]) -> _Captured:
    columns, arrays = 0, list[tuple[int, bool]]()
    for run in resolved.runs:
        for read in run.reads:
            whole = site_form(read, resolved.lines[run.name], points)
            arrays.append((4 * whole.numbers, read.reduce == "none"))
            if read.reduce == "unembed":
                arrays += [(4 * forms[name].numbers, True) for name in _names(run, read)]
            if read.sites[0].heads or read.sites[0].units:
                columns += 8 * len(read.sites) * math.prod(whole.shape[1 + read.layered :])
    spills = sum(size for size, _ in arrays) > SPILLS_ABOVE
    on_disk = [each for each in arrays if spills and each[0] >= SPILLED_FROM]
    values = sum(size for size, is_value in on_disk if is_value)
    spilled = sum(size for size, _ in on_disk)
    beside = sum(size for size, is_value in arrays if not is_value) - (spilled - values)
    return _Captured(beside + columns, values, spilled)


def _names(run: RunSpec, read: ReadSpec) -> list[str]:
    """Of the values that a read gives."""
    parts = (".ids", ".logprobs") if read.reduce == "unembed" and read.unembed.topk else ("",)
    return [f"{run.name}.{read.name}{part}" for part in parts]


def _forms(resolved: Resolved, points: Sequence[ModelPoint], vocabulary: int) -> dict[str, Form]:
    """The forms of all values, by name.

    Raises:
        InvalidRequest: there is no such derived value, or no such projection.
    """
    given = {name: tensor.shape for name, tensor in resolved.tensors.items()}
    given |= {name: needed.shape for name, needed in resolved.artifacts.items()}
    forms = {name: Form(shape, ("",) * len(shape)) for name, shape in given.items()}
    matrices: list[tuple[RunSpec, ReadSpec]] = []
    for run in resolved.runs:
        most = run.sampling.max_tokens
        if most:
            forms[f"{run.name}.tokens"] = Form((most,), ("step",), is_integer=True)
            forms[f"{run.name}.logprobs"] = Form((most,), ("step",))
        for read in run.reads:
            if read.is_matrix:
                matrices.append((run, read))
                continue
            form = _reduced(read, site_form(read, resolved.lines[run.name], points), vocabulary)
            for name in _names(run, read):
                forms[name] = replace(form, is_integer=name == f"{run.name}.{read.name}.ids")
        for wrt in run.grad.wrt if run.grad is not None else ():
            site = ReadSpec(name=wrt.name, sites=wrt.sites, layered=wrt.layered)
            forms[f"{run.name}.{wrt.name}"] = site_form(site, resolved.lines[run.name], points)
    _add_made(forms, resolved, points, matrices)
    return forms


def _add_made(
    forms: dict[str, Form],
    resolved: Resolved,
    points: Sequence[ModelPoint],
    matrices: Sequence[tuple[RunSpec, ReadSpec]],
) -> None:
    """Add what is derived, which may be a matrix, and what matrices give, which may be derived from.

    Raises:
        InvalidRequest: see `_forms`.
    """
    derive: Sequence[DeriveSpec] = resolved.derive
    while derive or matrices:  # each round leaves fewer, for a plan closes no cycle
        later = []
        for spec in derive:
            if all(name in forms for name in spec.of):
                forms |= derived_forms(spec, forms)
            else:
                later.append(spec)
        derive, left = later, []
        for run, read in matrices:
            if read.direction in forms:
                whole = site_form(read, resolved.lines[run.name], points)
                forms[f"{run.name}.{read.name}"] = _through(run, read, whole, forms[read.direction])
            else:
                left.append((run, read))
        matrices = left


def _through(run: RunSpec, read: ReadSpec, rows: Form, matrix: Form) -> Form:
    """The form of rows behind a matrix.

    Raises:
        InvalidRequest: they do not fit each other.
    """
    if len(matrix.shape) != 2 or matrix.shape[1] != rows.shape[-1]:
        raise InvalidRequest(
            f"The matrix has shape {list(matrix.shape)}; it has to be [directions, {rows.shape[-1]}], as "
            "wide as what is read. Transpose it where it is the other way round.",
            param=f"runs.{run.origin}.read.{read.name}.reduce.project",
        )
    return Form((*rows.shape[:-1], matrix.shape[0]), (*rows.axes[:-1], "direction"))


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
