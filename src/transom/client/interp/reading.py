"""What a model would say early, and what it looks at: the logit lens, and attention patterns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from transom.client.inside import Tensor
from transom.client.interp import lookups
from transom.client.interp.subject import Steps, Subject, traced
from transom.client.interp.traces import Input, Pos


@dataclass(frozen=True, slots=True)
class Lens:
    """The likeliest tokens at each place; all three have the axes layer, pos, rank."""

    ids: Tensor
    logprobs: Tensor
    """In nats."""
    tokens: Tensor
    """What the ids are spelled like."""
    record: str

    def plot(self, title: str = "") -> Any:  # noqa: ANN401
        """The logprob of the likeliest token over layers and positions; see `Tensor.plot`."""
        return self.logprobs.at(rank=0).plot(title)


def logit_lens(model: Subject[Any], prompt: Input, *, topk: int = 5, pos: Pos = "last") -> Steps[Lens]:
    """What each layer's stream would predict if the model ended there.

    nostalgebraist 2020, "interpreting GPT: the logit lens". Needs `model:logprobs` beside `internals:read`.
    """
    found = yield from traced(model, a=model.trace(prompt).lens(topk=topk, pos=pos))
    labels = yield from lookups.position_labels(model, prompt, pos)
    ids = found["lens.ids"].named(**labels)
    texts = yield from lookups.texts(model, ids.data.ravel())
    tokens = np.array(texts, dtype=object).reshape(ids.shape)
    logprobs = found["lens.logprobs"].named(**labels)
    return Lens(ids, logprobs, Tensor(tokens, ids.axes, ids.labels), found.record)


def attention(
    model: Subject[Any],
    prompt: Input,
    *,
    layer: int | None = None,
    head: int | None = None,
    pos: Pos = "all",
) -> Steps[Tensor]:
    """Attention patterns: layer, head, query, key; without the axes that are chosen.

    The numbers along `key` add up to 1. `pos` chooses queries.
    """
    at = "attn_probs.*" if layer is None else f"attn_probs.{layer}"
    found = yield from traced(model, a=model.trace(prompt).read(at, name="pattern", pos=pos, head=head))
    pattern = found["pattern"].renamed(pos="query", unit="key")
    if head is not None:
        pattern = pattern.at(head=0)
    queries = yield from lookups.position_labels(model, prompt, pos, axis="query")
    keys = yield from lookups.position_labels(model, prompt, "all", axis="key")
    order = [axis for axis in ("layer", "head", "query", "key") if axis in pattern.axes]
    return pattern.transposed(*order).named(**queries, **keys)
