"""The table that a comparison prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.load.figures import medians, ratio
from benchmarks.load.rows import Row
from benchmarks.load.words import SHOWN, WITHOUT_RATIO, name_figure, name_setting, show


def settings_of(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of one run in groups of the same scenario and settings, in order of their first row."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(f"{row.scenario} {sorted(row.settings.items())}", []).append(row)
    return list(groups.values())


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """A table of medians for each setting; ratios are of the reference to each other server."""
    for group in settings_of(rows):
        yield ""
        yield name_setting(group[0].scenario, group[0].settings)
        yield from _aligned(_cells(group))


def _cells(group: Sequence[Row]) -> Iterator[list[str]]:
    ours = next((row for row in group if row.server["reference"]), None)
    peers = [row for row in group if row is not ours]
    shown = [ours, *peers] if ours else peers
    measured = {id(row): medians(row.rounds) for row in shown}
    heads = [f"{ours.server['label']}/{row.server['label']}" for row in peers] if ours else []
    yield ["", *(row.server["label"] for row in shown), *heads]
    for figure in SHOWN[group[0].scenario]:
        if not any(figure in measured[id(row)] for row in shown):
            continue
        values = [measured[id(row)].get(figure) for row in shown]
        counts = [measured[id(row)].get("requests") for row in shown]
        cells = [show(figure, value, count) for value, count in zip(values, counts, strict=True)]
        ratios = [ratio(values[0], value) for value in values[1:]] if ours else []
        without = group[0].scenario in WITHOUT_RATIO or figure in WITHOUT_RATIO
        yield [
            name_figure(figure),
            *cells,
            *("" if each is None or without else f"{each:.2f}" for each in ratios),
        ]


def _aligned(cells: Iterator[list[str]]) -> Iterator[str]:
    rows = list(cells)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for first, *rest in rows:
        numbers = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        yield "  ".join((f"  {first.ljust(widths[0])}", *numbers)).rstrip()
