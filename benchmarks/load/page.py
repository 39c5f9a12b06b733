"""The page of results, `docs/reference/performance.md`, out of the rows in `benchmarks/results`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.load.figures import medians, ratio
from benchmarks.load.rows import Row, read_all
from benchmarks.load.words import SHOWN, WITHOUT_RATIO, name_figure, name_setting, show

NOTE = "<!-- Made by `python -m scripts.generate`; do not edit. -->"

_INTRODUCTION = """\
What a server of Transom and its peers did on the same machine, in turn and with the same prompts: one is
measured while the other is idle, round after round, and the medians are here. Hosts are noisy; only ratios of
the same run mean much. A ratio is ours over theirs: above 1 is faster for tokens and requests a second, and
below 1 is faster for times.
"""

_GATEWAYS = """\
A gateway is one process on one core; upstream and load generator share the other, and connections stay open.
The upstream answers at once. The pass-through and LiteLLM hand on to it over HTTP; Transom's backend is in
its process, since a record needs token ids, which this upstream does not tell: so ours saves a hop, and does
what the others do not: template and tokenizer of a real model, and a sealed record on disk before the answer
ends. LiteLLM has a master key and no database; the pass-through asks nobody for a key."""

_REPRODUCE = """\
## Reproduce it

With a server of Transom and one of a peer running, and nothing else:

```text
benchmarks/peers/vllm.sh install
benchmarks/peers/vllm.sh serve MODEL_FOLDER
python benchmarks/serve.py compare --server ours=http://127.0.0.1:8600/v1 --key ours=$OPENAI_API_KEY \\
  --server vllm=http://127.0.0.1:8001/v1 --dtype ours=float32 --dtype vllm=float32 --rounds 3
```

[How to measure](../../benchmarks/README.md) has every command and every scenario. Each run appends its rows,
with the figures of each round, to `benchmarks/results`; this page shows the newest of each machine, number
format, peer and scenario.
"""


def performance() -> Iterator[str]:
    """`performance.md`."""
    yield from page(read_all())


def page(rows: Sequence[Row]) -> Iterator[str]:
    """The page for some rows, the oldest first; those of scenarios with a page of their own are left out."""
    rows = [row for row in rows if row.scenario in SHOWN]
    yield from ("# Performance", "", NOTE, "", _INTRODUCTION)
    if not rows:
        yield from ("No results are kept yet.", "")
    by_machine: dict[str, list[Row]] = {}
    for row in rows:
        by_machine.setdefault(describe(row.machine), []).append(row)
    for machine, found in sorted(by_machine.items()):
        yield from (f"## {machine}", "")
        yield from _machine(found)
    yield _REPRODUCE


def describe(machine: Mapping[str, Any]) -> str:
    """A machine in a line."""
    isa = ", ".join(machine["isa"]) or "no vector instructions of note"
    return f"{machine['cores']} cores of {machine['cpu']}: {isa}; {machine['memory_gib']} GiB"


def _machine(rows: Sequence[Row]) -> Iterator[str]:
    sections: dict[str, dict[str, Pair]] = {}
    for pair in pairs(rows):
        key = name_setting(pair.ours.scenario, pair.ours.settings)
        # Rows come the oldest first, so the newest stays.
        sections.setdefault(pair.title, {})[key] = pair
    for title, found in sorted(sections.items()):
        yield from (f"### {title}", "")
        yield from _table(list(found.values()))
        if any(pair.ours.scenario.startswith("gateway") for pair in found.values()):
            yield from (_GATEWAYS, "")


class Pair:
    """Our row of a setting and, unless we were measured alone, a peer's of the same run."""

    def __init__(self, ours: Row, theirs: Row | None) -> None:
        self.ours = ours
        self.theirs = theirs

    @property
    def title(self) -> str:
        """What is compared with what."""
        ours = _server(self.ours)
        return f"{ours}, alone" if self.theirs is None else f"{ours} and {_server(self.theirs)}"


def pairs(rows: Sequence[Row]) -> Iterator[Pair]:
    """Each reference with each peer that was measured in the same run and setting."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(f"{row.run} {row.scenario} {sorted(row.settings.items())}", []).append(row)
    for group in groups.values():
        peers = [row for row in group if not row.server["reference"]]
        for ours in (row for row in group if row.server["reference"]):
            yield from (Pair(ours, each) for each in peers)
            if not peers:
                yield Pair(ours, None)


def _server(row: Row) -> str:
    words = (row.server[name] for name in ("label", "version", "dtype"))
    return " ".join(word for word in words if word).replace("ours", "Transom")


def _table(found: Sequence[Pair]) -> Iterator[str]:
    order = list(SHOWN)
    alone = found[0].theirs is None
    heads = ["what", "figure", "ours", *([] if alone else ["theirs", "ours / theirs"]), "measured"]
    yield "| " + " | ".join(heads) + " |"
    yield "| " + " | ".join("---" for _ in heads) + " |"
    for pair in sorted(found, key=lambda each: order.index(each.ours.scenario)):
        for cells in _lines(pair):
            yield "| " + " | ".join(cells) + " |"
    yield ""


def _lines(pair: Pair) -> Iterator[list[str]]:
    ours = medians(pair.ours.rounds)
    theirs = medians(pair.theirs.rounds) if pair.theirs else {}
    scenario = pair.ours.scenario
    first = True
    for figure in SHOWN[scenario]:
        if figure not in ours and figure not in theirs:
            continue
        cells = [name_setting(scenario, pair.ours.settings) if first else "", name_figure(figure)]
        cells.append(show(figure, ours.get(figure), ours.get("requests")))
        if pair.theirs:
            without = scenario in WITHOUT_RATIO or figure in WITHOUT_RATIO
            times = None if without else ratio(ours.get(figure), theirs.get(figure))
            cells.append(show(figure, theirs.get(figure), theirs.get("requests")))
            cells.append("" if times is None else f"{times:.2f}")
        yield [*cells, _measured(pair.ours) if first else ""]
        first = False


def _measured(row: Row) -> str:
    changed = " and changes" if row.dirty else ""
    rounds = len(row.rounds)
    return f"{row.date[:10]}, {row.commit[:10]}{changed}, {rounds} round{'s' if rounds > 1 else ''}"
