"""How large the values of a resolved plan can become: known before it runs, and charged after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from transom.errors import InvalidRequest
from transom.schema.program import DeriveSpec, ModelPoint, ReadSpec, RunSpec
from transom.services.positions import Line
from transom.services.resolving import Resolved

MAX_BYTES = 1 << 30
"""Most bytes of all values of one plan together; they are in memory at once."""

Shape = tuple[int, ...]


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


def sizes_of(resolved: Resolved, points: Sequence[ModelPoint], vocabulary: int) -> Sizes:
    """What a plan makes at most.

    Raises:
        InvalidRequest: derived values do not fit each other, or all of them are too large.
    """
    shapes = _shapes(resolved, points, vocabulary)
    for spec in resolved.derive:
        shapes |= _derived(spec, shapes)
    _check_written(resolved, points, shapes)
    kept = 4 * sum(map(math.prod, shapes.values())) + _captured(resolved, points)
    if kept > MAX_BYTES:
        raise InvalidRequest(
            f"The values of this plan take up to {kept} bytes; {MAX_BYTES} are kept at once. Read fewer "
            "positions, layers or units, reduce them, or send several plans.",
            param="runs",
            code="plan_too_large",
        )
    told = [
        name
        for ref in resolved.returns
        for name in (ref, f"{ref}.ids", f"{ref}.logprobs", f"{ref}.values")
        if name in shapes
    ]
    return Sizes(
        tokens=sum(line.prompt + line.most for line in resolved.lines.values()),
        rows=sum(resolved.lines[run.name].end + _graded(run) for run in resolved.runs),
        returned=4 * sum(math.prod(shapes[name]) for name in told),
        kept=kept,
        vectors=sum(_told(run.name, read, shapes) for run in resolved.runs for read in run.reads),
    )


def _graded(run: RunSpec) -> int:
    """Rows of forwards that the gradients of a run take; a backward is as much as two."""
    if run.grad is None:
        return 0
    times = 1 + run.grad.steps * len(run.grad.wrt) if run.grad.mode == "integrated" else 1
    return 3 * times * len(run.token_ids)


def _told(run: str, read: ReadSpec, shapes: Mapping[str, Shape]) -> int:
    """How many logits or logprobs a read tells."""
    if read.reduce != "unembed" or read.name.startswith("_"):
        return 0
    return math.prod(shapes[f"{run}.{read.name}" + (".logprobs" if read.unembed.topk else "")])


def _check_written(resolved: Resolved, points: Sequence[ModelPoint], shapes: Mapping[str, Shape]) -> None:
    """Pass writes whose values fit where they are written.

    Raises:
        InvalidRequest: one does not.
    """
    for run in resolved.runs:
        for index, write in enumerate(run.writes):
            if write.value:
                whole = _whole(ReadSpec(name="", sites=(write.site,)), resolved.lines[run.name], points)
                positions, *own = whole
                count = math.prod(shapes[write.value])
                fits = {math.prod(own), own[-1]}
                if write.op not in ("scale_along", "project_out", "clamp"):
                    fits |= {positions * size for size in tuple(fits)} | {1}
                if count not in fits:
                    raise InvalidRequest(
                        f"{write.value} has shape {list(shapes[write.value])}; the site has {positions} "
                        f"positions of {' times '.join(map(str, own))} numbers.",
                        param=f"runs.{run.name}.write.{index}.value",
                    )


def _captured(resolved: Resolved, points: Sequence[ModelPoint]) -> int:
    """Bytes of what is reduced, before it is."""
    return 4 * sum(
        math.prod(_whole(read, resolved.lines[run.name], points))
        for run in resolved.runs
        for read in run.reads
        if read.reduce != "none"
    )


def _shapes(resolved: Resolved, points: Sequence[ModelPoint], vocabulary: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {name: tensor.shape for name, tensor in resolved.tensors.items()}
    for run in resolved.runs:
        most = run.sampling.max_tokens
        if most:
            shapes |= {f"{run.name}.tokens": (most,), f"{run.name}.logprobs": (most,)}
        for read in run.reads:
            name, whole = f"{run.name}.{read.name}", _whole(read, resolved.lines[run.name], points)
            shapes[name] = _reduced(read, whole, vocabulary)
            if read.reduce == "unembed" and read.unembed.topk:
                shape = shapes.pop(name)
                shapes |= {f"{name}.ids": shape, f"{name}.logprobs": shape}
        for wrt in run.grad.wrt if run.grad is not None else ():
            site = ReadSpec(name=wrt.name, sites=wrt.sites, layered=wrt.layered)
            shapes[f"{run.name}.{wrt.name}"] = _whole(site, resolved.lines[run.name], points)
    return shapes


def _whole(read: ReadSpec, line: Line, points: Sequence[ModelPoint]) -> Shape:
    """[layers] positions [heads] width."""
    site = read.sites[0]
    point = next(each for each in points if each.name == site.point and site.layer in each.layers)
    width = len(site.units) or point.width or line.prompt + line.most
    heads = (len(site.heads) or point.heads,) if point.heads > 1 else ()
    return (*((len(read.sites),) if read.layered else ()), len(site.positions), *heads, width)


def _reduced(read: ReadSpec, whole: Shape, vocabulary: int) -> Shape:
    match read.reduce:
        case "mean":
            return whole[:1] * read.layered + whole[1 + read.layered :]
        case "norm" | "project":
            return whole[:-1]
        case "unembed":
            return (*whole[:-1], read.unembed.topk or len(read.unembed.targets) or vocabulary)
        case _:
            return whole


def _derived(spec: DeriveSpec, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    name, of = spec.name, [shapes[ref] for ref in spec.of]
    try:
        shape = _combined(spec, of)
    except ValueError as error:
        raise InvalidRequest(
            f"{spec.op} of values of shape {' and '.join(map(str, of))} cannot be taken: {error}.", param=name
        ) from error
    return {f"{name}.ids": shape, f"{name}.values": shape} if spec.op == "topk" else {name: shape}


def _combined(spec: DeriveSpec, of: Sequence[Shape]) -> Shape:
    """The shape of an expression.

    Raises:
        ValueError: there is none.
    """
    first = of[0]
    if not first and spec.op in ("dot", "normalize", "topk"):
        raise ValueError("a single number has no axis")
    match spec.op:
        case "sub" | "add":
            return np.broadcast_shapes(*of)
        case "stack":
            lengths = tuple(length for _, length in spec.grid) or (len(of),)
            return (*lengths, *_alike(of))
        case "mean":
            return _alike(of) if spec.among else _mean(spec, first)
        case "dot":
            np.broadcast_shapes(first, of[1])
            return first[:-1]
        case "topk":
            return (*first[:-1], min(int(spec.number), first[-1]))
        case _:
            return first


def _alike(of: Sequence[Shape]) -> Shape:
    if len(set(of)) > 1:
        raise ValueError("they differ in shape")
    return of[0]


def _mean(spec: DeriveSpec, of: Shape) -> Shape:
    """Along all axes; along a named one at most what it is along none, since which one it is shows later."""
    return of if spec.axis else ()
