"""The page of experiments, `docs/reference/experiments.md`, out of the rows in `benchmarks/results`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.equality.words import EXPERIMENTS, SCENARIO
from benchmarks.load.page import NOTE, describe
from benchmarks.load.rows import Row, read_all

_INTRODUCTION = """\
Twelve kinds of experiments, each by a plan over HTTP and by plain PyTorch on the same weights: transformers'
own modules in float32, eager attention, forward hooks, autograd. No code of Transom's engine is part of the
reference. What "the same" means, and why numbers differ at all, is in
[Inside the machine](../explanation/internals.md#the-same-as-by-hand).

- *scaled* is the largest difference of any number, in parts of the largest number of its vector where that
  is above 1: a residual stream has numbers above 20,000, and a float32 of that size is known to 0.002. It
  must be at most 1e-4.
- *absolute* is the largest difference of those values that must be within 1e-4 however large they are:
  logprobs of tokens, logits of the answers, attention patterns, attributions. A gradient as it is may have
  any size, and counts like the residual stream.
- *of all* is the largest difference of any number, as it is.
- *from float64* is how far ours, and plain PyTorch in float32, are from the same model in float64, scaled.
- *alone = in traffic*: each experiment alone, and then all twelve at once beside eight others who generate
  and send plans without a pause; all bytes of all values are compared.

Tokens are compared with `==` throughout.
"""

_REPRODUCE = """\
## Reproduce it

With a server that serves the model in float32:

```text
OPENAI_API_KEY=… python benchmarks/experiments.py --base-url http://127.0.0.1:8600/v1 \\
    --model-root MODEL_FOLDER --exact
```

The tests do the same (`tests/e2e/test_experiments.py`). With `--keep` rows are appended to
`benchmarks/results`; this page shows the newest of each machine.
"""


def experiments() -> Iterator[str]:
    """`experiments.md`."""
    yield from page(read_all())


def page(rows: Sequence[Row]) -> Iterator[str]:
    """The page for some rows, the oldest first; those of other scenarios are left out."""
    yield from ("# Experiments", "", NOTE, "", _INTRODUCTION, "## What is compared", "")
    yield from ("| experiment | what is compared |", "| --- | --- |")
    yield from (f"| {name} | {compared} |" for name, compared in EXPERIMENTS.values())
    yield ""
    newest: dict[str, str] = {}
    mine = [row for row in rows if row.scenario == SCENARIO]
    for row in mine:
        newest[describe(row.machine)] = row.run
    for machine, run in sorted(newest.items()):
        found = [row for row in mine if (describe(row.machine), row.run) == (machine, run)]
        yield from (f"## {machine}", "", _measured(found[0]), "")
        yield from table(found)
    if not mine:
        yield from ("No results are kept yet.", "")
    yield _REPRODUCE


def _measured(row: Row) -> str:
    changed = " and changes" if row.dirty else ""
    return f"{row.server['model']} in {row.server['dtype']}, {row.date[:10]}, {row.commit[:10]}{changed}."


_HEADS = (
    "experiment",
    "numbers compared",
    "scaled",
    "absolute",
    "of all",
    "from float64: ours, plain",
    "alone = in traffic",
)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each experiment of one run."""
    yield "| " + " | ".join(_HEADS) + " |"
    yield "| " + " | ".join("---" for _ in _HEADS) + " |"
    for row in rows:
        yield "| " + " | ".join(_cells(row)) + " |"
    yield ""


def _cells(row: Row) -> Iterator[str]:
    (found,) = row.rounds
    yield EXPERIMENTS[row.settings["experiment"]][0]
    yield f"{found['numbers']:,.0f}"
    for name in ("scaled", "absolute", "largest"):
        yield _short(found[name])
    exact = [found[name] for name in ("scaled_exact", "plain_scaled_exact") if name in found]
    yield ", ".join(map(_short, exact)) or "-"
    yield f"{'yes' if found['same'] else 'no'}, beside {found['company']:.0f} others"


def _short(number: float) -> str:
    return f"{number:.1e}" if number else "0"
