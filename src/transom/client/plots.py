"""Charts of tensors, as Vega-Lite specifications, which altair shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_STEP = 18
"""Pixels of a cell that has a label."""


def specification(
    data: NDArray[Any], axes: tuple[str, ...], labels: Mapping[str, Sequence[str]], title: str = ""
) -> dict[str, Any]:
    """The chart of an array: a heat map of two axes, a line of one; axes of length 1 are not counted.

    Raises:
        ValueError: it has more axes than two, or none.
    """
    kept = [axis for axis, size in zip(axes, data.shape, strict=True) if size > 1]
    if not 1 <= len(kept) <= 2:
        raise ValueError(
            f"a chart has one axis or two, and this has {', '.join(kept) or 'none'}; "
            "choose places with at(), or take a mean"
        )
    values = data.reshape([data.shape[axes.index(axis)] for axis in kept])
    named = {axis: _texts(axis, size, labels) for axis, size in zip(kept, values.shape, strict=True)}
    rows = [
        dict(zip(kept, index, strict=True)) | {"value": _number(value)}
        for index, value in np.ndenumerate(values)
    ]
    shape = _heat_map(kept, named, rows) if len(kept) == 2 else _line(kept[0], named)
    return {"$schema": _SCHEMA, "title": title, "data": {"values": rows}, **shape}


def chart(
    data: NDArray[Any], axes: tuple[str, ...], labels: Mapping[str, Sequence[str]], title: str = ""
) -> Any:  # noqa: ANN401
    """The same as an `altair.Chart`.

    Raises:
        ValueError: it has more axes than two, or none.
        ModuleNotFoundError: altair is not installed.
    """
    made = specification(data, axes, labels, title)
    try:
        import altair as alt  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Charts are drawn by altair, which is not installed; pip install 'transom[plot]'", name=error.name
        ) from error
    return alt.Chart.from_dict(made)


def _heat_map(
    axes: list[str], named: Mapping[str, list[str] | None], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    down, across = axes
    signed = any(row["value"] is not None and row["value"] < 0 for row in rows)
    # Below and above nothing look different, and nothing looks like nothing.
    scale = {"scheme": "redblue", "domainMid": 0} if signed else {"scheme": "blues"}
    encoding = {
        "y": _ordinal(down, named[down]),
        "x": _ordinal(across, named[across]),
        "color": {"field": "value", "type": "quantitative", "scale": scale},
        "tooltip": [{"field": name} for name in (down, across, "value")],
    }
    return {"mark": "rect", "encoding": encoding, "width": {"step": _STEP}, "height": {"step": _STEP}}


def _line(axis: str, named: Mapping[str, list[str] | None]) -> dict[str, Any]:
    encoding = {"x": _ordinal(axis, named[axis]), "y": {"field": "value", "type": "quantitative"}}
    return {
        "mark": {"type": "line", "point": True, "tooltip": True},
        "encoding": encoding,
        "width": {"step": _STEP},
    }


def _ordinal(axis: str, texts: list[str] | None) -> dict[str, Any]:
    # Places are told apart by their number: the same token may stand twice in a prompt.
    spelled = {"labelExpr": f"{_spelled(texts)}[datum.value]"} if texts is not None else {}
    return {"field": axis, "type": "ordinal", "axis": {"title": axis, **spelled}}


def _texts(axis: str, size: int, labels: Mapping[str, Sequence[str]]) -> list[str] | None:
    return list(labels[axis]) if len(labels.get(axis, ())) == size else None


def _spelled(texts: list[str]) -> str:
    """A list of strings in Vega's expression language, which has JavaScript's escapes."""
    quoted = ("".join(_escaped(character) for character in text) for text in texts)
    return "[" + ",".join(f"'{text}'" for text in quoted) + "]"


def _escaped(character: str) -> str:
    if character.isprintable() and character not in "'\\":
        return character
    raw = character.encode("utf-16-be")
    return "".join(f"\\u{raw[i]:02x}{raw[i + 1]:02x}" for i in range(0, len(raw), 2))


def _number(value: Any) -> float | None:  # noqa: ANN401
    # JSON has no infinity; a cell without a number is left empty.
    return float(value) if np.isfinite(value) else None
