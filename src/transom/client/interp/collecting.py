"""Activation datasets: values at some points over many prompts, kept in a folder as they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from transom.client.inside import Tensor, Traced
from transom.client.interp import lookups
from transom.client.interp.datasets import ROW_COLUMNS, Activations, Folder, Index
from transom.client.interp.subject import Steps, Subject, traced
from transom.client.interp.traces import Input, Trace, name_of
from transom.errors import InvalidRequest
from transom.schema.canonical import sha256
from transom.schema.plan import MAX_RUNS
from transom.schema.points import POINTS, parse_site_name

_FIRST = 8
"""Prompts of the first plan; what comes back says how many the next may have."""

_MOST_BYTES = 64 << 20
"""Of one answer, and so of one shard."""


@dataclass(slots=True)
class _Batch:
    """How many prompts a plan gets: as many as make an answer of a shard's size, and not more than it may."""

    size: int = _FIRST

    def came(self, prompts: int, content: int) -> None:
        fitting = max(1, prompts * _MOST_BYTES // max(1, content))
        self.size = min(fitting, 2 * self.size, MAX_RUNS)

    def refused(self, prompts: int) -> None:
        self.size = max(1, prompts // 2)


def collect(
    model: Subject[Any],
    prompts: Sequence[Input],
    folder: str | Path,
    *,
    at: str | Sequence[str] | Mapping[str, str] = "resid_post.*",
    pos: Literal["all", "last"] | int | Sequence[int] = "all",
    progress: bool = True,
) -> Steps[Activations]:
    """Read points over many prompts, and keep what comes in a folder: shards as safetensors, and an index.

    Plans are made as large as the server takes them. Interrupted, it goes on after the last shard when it is
    called again with the same arguments; every shard has a record that replays. See `Activations` for how to
    read the folder, from torch too.

    Args:
        model: what is looked into.
        prompts: texts, token ids or messages.
        folder: where to; made if it is not there.
        at: points; by name, or called by point and layer.
        pos: positions of each prompt; each becomes a row.
        progress: show a bar on standard error, where that is a terminal.

    Raises:
        Conflict: the folder holds other activations, or those of another deployment.
        TransomError: the server refused; `plan_too_large` is said of a single prompt only.
    """
    if not prompts:
        raise InvalidRequest("There are no prompts; give at least one.", param="prompts")
    reads = _named(at)
    said = lookups.spelled(list(prompts)).encode()
    wanted = Index(
        model=model.name,
        reads=reads,
        pos=pos if isinstance(pos, str | int) else list(pos),
        prompts=len(prompts),
        prompts_sha256=sha256(said),
    )
    kept, batch = Folder(folder, wanted), _Batch()
    with _bar(len(prompts), shown=progress) as advance:
        advance(kept.index.done)
        while (start := kept.index.done) < len(prompts):
            some = prompts[start : start + batch.size]
            try:
                found = yield from traced(model, **_traces(model, some, reads, wanted.pos))
            except InvalidRequest as refused:
                if refused.reason != "plan_too_large" or len(some) == 1:
                    raise
                batch.refused(len(some))
                continue
            batch.came(len(some), len(found.content))
            rows = yield from _rows(model, some, wanted.pos, start)
            arrays = _joined(found, len(some), reads)
            kept.add(
                {name: tensor.data for name, tensor in arrays.items()} | rows,
                {name: tensor.axes for name, tensor in arrays.items()},
                prompts=(start, start + len(some)),
                record=found.record,
                deployment=found.deployment,
            )
            advance(len(some))
    return Activations(folder)


def _named(at: str | Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    listed = at if isinstance(at, Mapping) else {name_of(each): each for each in _listed(at)}
    for name, site in listed.items():
        if name in ROW_COLUMNS:
            raise InvalidRequest(f"{name} is a column of every dataset; choose another name.", param="at")
        if name_of(site) and POINTS[parse_site_name(site).point].width == "keys":
            message = f"{site} is as wide as its prompt is long, and rows are alike; use attention() for it."
            raise InvalidRequest(message, param="at")
    return dict(listed)


def _listed(at: str | Sequence[str]) -> Sequence[str]:
    return [at] if isinstance(at, str) else at


def _traces(
    model: Subject[Any],
    prompts: Sequence[Input],
    reads: Mapping[str, str],
    pos: Any,  # noqa: ANN401
) -> dict[str, Trace[Any]]:
    traces = {}
    for number, prompt in enumerate(prompts):
        trace = model.trace(prompt)
        for name, at in reads.items():
            trace = trace.read(at, name=name, pos=pos)
        traces[f"p{number}"] = trace
    return traces


def _joined(found: Traced, count: int, reads: Mapping[str, str]) -> dict[str, Tensor]:
    """Positions of all prompts one after the other, in front of the other axes."""
    return {name: _stacked([found[f"p{number}.{name}"] for number in range(count)]) for name in reads}


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    axes = ("pos", *(axis for axis in parts[0].axes if axis != "pos"))
    data = np.concatenate([part.transposed(*axes).data for part in parts])
    return Tensor(data, ("row", *axes[1:]))


def _rows(
    model: Subject[Any],
    prompts: Sequence[Input],
    pos: str | int | Sequence[int],
    start: int,
) -> Steps[dict[str, NDArray[Any]]]:
    rows: list[tuple[int, int, int]] = []
    for number, prompt in enumerate(prompts, start):
        ids = yield from lookups.token_ids(model, prompt)
        rows += [(number, place % len(ids), ids[place]) for place in _places(pos, len(ids))]
    columns = np.array(rows, np.int32).T
    return {name: columns[index] for index, name in enumerate(ROW_COLUMNS)}


def _places(pos: str | int | Sequence[int], length: int) -> Sequence[int]:
    if isinstance(pos, str):
        return range(length) if pos == "all" else [-1]
    return [pos] if isinstance(pos, int) else pos


@contextmanager
def _bar(total: int, *, shown: bool) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as progress:
        task = progress.add_task("prompts", total=total)
        yield lambda count: progress.advance(task, count)
