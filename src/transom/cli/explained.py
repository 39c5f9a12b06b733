"""What a plan would take and give, as rows that `transom explain` prints."""

from __future__ import annotations

from collections.abc import Iterator

from transom.schema.explanations import Explanation, SharedRun

_STEP = 1024


def account(found: Explanation) -> Iterator[tuple[str, str]]:
    """(what, how much), of the whole plan."""
    yield "model", f"{found.model} · {found.deployment[:19]}"
    yield "runs", _runs(found)
    yield "tokens", f"{found.tokens.prompt:,} of prompts, at most {found.tokens.generated:,} generated"
    yield from _work(found)
    yield from _memory(found)
    yield "returned", _bytes(found.returned_bytes)
    yield "charged at most", _charged(found)
    yield "scopes", ", ".join(found.scopes) or "none"
    yield from (("point", f"{name} is {point}") for name, point in found.points.items())


def values(found: Explanation) -> list[tuple[str, ...]]:
    """A row for each value that would come back."""
    return [
        (each.name, each.dtype, " x ".join(map(str, each.shape)), ", ".join(each.axes), _bytes(each.bytes))
        for each in found.values
    ]


def _runs(found: Explanation) -> str:
    if found.cells is None:
        return f"{found.runs:,}"
    return f"{found.runs:,}, one of them in {found.cells:,} cells: {found.sequences:,} sequences"


def _work(found: Explanation) -> Iterator[tuple[str, str]]:
    rows, operations = found.rows, found.operations
    yield "rows x layers", _of(rows.computed, rows.alone)
    yield from (("shared", _shared(each)) for each in found.shared)
    if rows.gradients:
        yield "gradients", f"{rows.gradients:,} rows x layers more"
    if rows.output:
        yield "output matrix", f"{rows.output:,} rows"
    yield "operations", f"{_operations(operations.total)}"


def _of(computed: int, alone: int) -> str:
    if computed == alone:
        return f"{computed:,}, nothing is shared"
    return f"{computed:,} of {alone:,}: {computed / alone:.0%} of what the runs take alone"


def _shared(shared: SharedRun) -> str:
    first, last = shared.layers[0], shared.layers[-1]
    layers = f"layer {first}" if first == last else f"layers {first} to {last}"
    return (
        f"{shared.begin:,} begin in {shared.run}, at {layers}, from position {shared.position} on: "
        f"{shared.saved:,} rows x layers saved, {_bytes(shared.bytes)} kept for them"
    )


def _memory(found: Explanation) -> Iterator[tuple[str, str]]:
    memory = found.memory
    parts = {
        "values": memory.values,
        "captured before they are reduced": memory.captured,
        "kept for other runs": memory.shared,
        "a gradient": memory.gradients,
        "the model once more, unless it is loaded": memory.copy_of_model,
    }
    told = ", ".join(f"{_bytes(size)} {what}" for what, size in parts.items() if size)
    yield "memory", f"{_bytes(memory.total)}: {told}" if told else _bytes(0)
    if memory.spilled:
        yield "disk", _bytes(memory.spilled)


def _charged(found: Explanation) -> str:
    charged = found.charged
    return (
        f"{charged.requests} request, {charged.tokens:,} tokens, {charged.engine_seconds:,.3g} engine "
        f"seconds, {charged.internals_bytes:,} bytes of internals, rank {charged.released_rank:.3g}"
    )


def _operations(count: int) -> str:
    size = float(count)
    for unit in ("", "K", "M", "G"):
        if size < 1000:
            return f"{size:.3g} {unit}FLOP"
        size /= 1000
    return f"{size:,.3g} TFLOP"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < _STEP:
            return f"{size:.3g} {unit}"
        size /= _STEP
    return f"{size:,.3g} GiB"
