"""Steering: what a model writes with a direction added to its stream, beside what it writes without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transom.client import operations
from transom.client.interp.subject import Steps, Subject, traced
from transom.client.interp.traces import Input, Pos
from transom.client.interp.values import Given


@dataclass(frozen=True, slots=True)
class Steered:
    """One prompt continued twice."""

    text: str
    """With the direction."""
    plain: str
    """Without it."""
    record: str


def steer(
    model: Subject[Any],
    /,
    prompt: Input,
    direction: Given | tuple[Input, Input],
    *,
    at: str,
    scale: float,
    max_tokens: int = 40,
    pos: Pos = "all",
    seed: int = 0,
    **options: Any,  # noqa: ANN401
) -> Steps[Steered]:
    """Continue a prompt while `direction` times `scale` is added at a point of one layer, and once without.

    Turner et al. 2023, "Activation Addition" (arXiv 2308.10248). Two prompts in the place of a direction mean
    what the first has more than the second at that point, at their last positions. `options` are those of
    `Trace.generate`, such as `temperature`; left out, the likeliest token is taken.
    """
    if isinstance(direction, tuple):
        more, less = (model.trace(each).read(at, name="end", pos="last") for each in direction)
        direction = more["end"] - less["end"]
    plain = model.trace(prompt).generate(max_tokens, **options)
    steered = plain.add(at, direction, scale=scale, pos=pos)
    found = yield from traced(model, seed, plain=plain, steered=steered)
    texts: list[str] = []
    for name in ("steered", "plain"):
        ids = found[f"{name}.tokens"].data.tolist()
        texts.append((yield operations.detokenize(model.name, ids)))
    return Steered(texts[0], texts[1], found.record)
