"""Where a difference of logits comes from: to first order by gradients, and exactly along the direct path."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from transom.client.inside import Tensor, Traced
from transom.client.interp import lookups
from transom.client.interp.lookups import Answers
from transom.client.interp.patching import check_point, difference
from transom.client.interp.subject import Steps, Subject, traced
from transom.client.interp.traces import Input, Pos, Trace, logit_diff
from transom.errors import UnsupportedParameter

Floats = NDArray[np.float64]

_TOLERANCE = 1e-3
"""How far numbers may be, relatively, from what a kind of norm makes them. Another kind is off by far more;
what differs below this is how a deployment rounds."""


def attribution_patching(
    model: Subject[Any],
    clean: Input,
    corrupt: Input,
    answers: Answers,
    *,
    at: str = "resid_post",
    pos: Pos = "all",
) -> Steps[Tensor]:
    """What each patch of `activation_patching` would change, to first order: gradient times difference.

    Nanda 2023, "Attribution patching"; Syed et al. 2023 (arXiv 2310.10348). Two passes in the place of one a
    patch. The axes are layer, pos and, at points that have heads, head; add numbers up along `head` or `pos`
    to patch these together. The numbers are logits: compare with `logit_diff - corrupt` of a patching.

    Raises:
        InvalidRequest: the prompts differ in length, or the point has no gradient.
    """
    check_point(at)
    yield from lookups.common_length(model, clean, corrupt)
    tokens = yield from lookups.answer_ids(model, answers)
    point = yield from lookups.point(model, at)
    source = model.trace(clean)
    site = f"{at}.*" if point.layers else at
    target = model.trace(corrupt).grad(
        site, of=logit_diff(*tokens), mode={"grad_x_delta": source}, name="effect", pos=pos
    )
    # Added up where the numbers are: what travels is one number a place, not a vector.
    width = point.width or (yield from lookups.tokens(model, corrupt)).count
    found = yield from traced(model, effect=target["effect"].mean("unit") * width)
    return found["derive.effect"].named(**(yield from lookups.position_labels(model, corrupt, pos)))


def direct_logit_attribution(
    model: Subject[Any], prompt: Input, answers: Answers, *, pos: int = -1
) -> Steps[Tensor]:
    """What the embedding and every layer's attention and MLP add to a difference of logits, directly.

    Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits". The stream `x` in front of the
    last norm is a sum of terms `c`: the embedding, and what each attention and MLP adds. With the norm's
    scale `s` held fixed at what it is in this run, the difference of two logits is linear in `x`, so it
    divides among the terms: each has `v · c / s`, where `v` is the norm's weight times the difference of the
    two rows of the output matrix. Where the norm centres, `x` and `c` are centred.

    The gradient of the difference with respect to `x` is not `v / s`: it also counts that a longer stream is
    scaled down more, which takes the part of `v` along `x` away, and the products with all terms add up to 0.
    At another position another part is missing, so `v` follows from the gradients at two positions, exactly.

    Returns:
        The axis `component`: `embed`, `attn_0`, `mlp_0`, …, `rest`. They add up to the difference of logits.
        `rest` is what no term has: biases of the norm and of the output matrix, and rounding.

    Raises:
        UnsupportedParameter: the last norm is neither RMSNorm nor LayerNorm, logits are capped, or the prompt
            is a single token.
    """
    tokens = yield from lookups.answer_ids(model, answers)
    length = (yield from lookups.tokens(model, prompt)).count
    if length < 2:
        raise UnsupportedParameter(
            "One token does not tell the norm's part; give two or more.", param="prompt"
        )
    last = ((yield from lookups.point(model, "resid_post")).layers or (0,))[-1]
    here = pos % length
    beside = here - 1 if here else 1
    stream = f"resid_post.{last}"
    trace = _directly(model.trace(prompt), stream, tokens, here).logits(tokens, pos=here)
    trace = trace.read("resid_pre.0", name="embed", pos=here)
    for name in ("attn", "mlp"):
        trace = trace.read(f"{name}_out_post.*", name=name, pos=here)
    found = yield from traced(model, a=trace, b=_directly(model.trace(prompt), stream, tokens, beside))
    return _divided(found, last + 1)


def _directly(trace: Trace[Any], stream: str, tokens: tuple[int, int], pos: int) -> Trace[Any]:
    trace = trace.read(stream, name="stream", pos=pos)
    return trace.grad(stream, of=logit_diff(*tokens, pos=pos), name="gradient", pos=pos)


def _divided(found: Traced, layers: int) -> Tensor:
    def numbers(*names: str) -> Floats:
        return np.concatenate([np.asarray(found[name], np.float64) for name in names])

    gradients = numbers("a.gradient", "b.gradient")
    # A norm that centres lets nothing through that all units have in common.
    centres = bool(np.abs(gradients.sum(-1)).max() <= _TOLERANCE * np.abs(gradients).sum(-1).min())
    streams = _centred(numbers("a.stream", "b.stream"), centres=centres)
    direction = _whole(streams, gradients) / _scale(streams)[0]
    terms = np.stack([numbers("attn")[:, 0], numbers("mlp")[:, 0]], axis=1).reshape(2 * layers, -1)
    parts = _centred(np.concatenate([numbers("embed"), terms]), centres=centres) @ direction
    total = float(difference(found["logits"]))
    names = ["embed", *(f"{kind}_{layer}" for layer in range(layers) for kind in ("attn", "mlp")), "rest"]
    data = np.append(parts, total - parts.sum()).astype(np.float32)
    return Tensor(data, ("component",), {"component": tuple(names)})


def _whole(streams: Floats, gradients: Floats) -> Floats:
    """`v`, of two streams and the gradients there; each is `v / s` without its part along its stream.

    Raises:
        UnsupportedParameter: no such `v` gives both gradients.
    """
    here, beside = streams / np.linalg.norm(streams, axis=-1, keepdims=True)
    known, other = gradients * _scale(streams)[:, None]
    # v = known + a * here, and without its part along `beside` it is `other`.
    along = here - beside * (beside @ here)
    a = along @ (other - known + beside * (beside @ known)) / (along @ along)
    whole: Floats = known + a * here
    if np.abs(whole - beside * (beside @ whole) - other).max() > _TOLERANCE * np.abs(whole).max():
        message = (
            "The last norm is neither RMSNorm nor LayerNorm, or logits are capped: nothing adds up here."
        )
        raise UnsupportedParameter(message, param="model")
    return whole


def _scale(streams: Floats) -> Floats:
    scale: Floats = np.sqrt(np.mean(streams**2, axis=-1))
    return scale


def _centred(vectors: Floats, *, centres: bool) -> Floats:
    return vectors - vectors.mean(-1, keepdims=True) if centres else vectors
