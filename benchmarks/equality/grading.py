"""Experiments with gradients: attribution patching, saliency, integrated gradients, direct attribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.equality.experiment import Experiment, Found
from benchmarks.equality.patching import ANSWERS, sides
from benchmarks.equality.plain import Edits, Plain, Seen, become, gradients
from benchmarks.equality.reading import COLOSSEUM, TOWER, plan

_STEPS = 8
_INTEGRATED = "resid_post.5"
_PREFERENCE = {"logit_diff": ANSWERS}
_ATTRIBUTIONS = ("mlp_out", "z", "resid_post", "times.g", "zero.g", "way.g")
"""Of the values, those that tell how much a logit or logprob would change. The others are gradients as they
are, of any size: plain PyTorch in float32 is as far from itself in float64 as ours is."""


def attribution() -> Experiment:
    """Every mode of a gradient, with metrics of several kinds."""
    everywhere = {point: {"at": f"{point}.*"} for point in ("mlp_out", "z", "resid_post")}
    at_input = {"g": {"at": "embeddings"}}
    inside = {"g": {"at": _INTEGRATED}}
    grads: dict[str, dict[str, Any]] = {
        "patch": {"of": _PREFERENCE, "wrt": everywhere, "mode": {"grad_x_delta": "clean"}},
        "saliency": {"of": {"logprob": ANSWERS[0]}, "wrt": at_input},
        "times": {"of": {"logprob": ANSWERS[0]}, "wrt": at_input, "mode": "grad_x_input"},
        "apart": {"of": {"kl": "clean"}, "wrt": {"g": {"at": "attn_out.*"}}},
        "zero": {"of": _PREFERENCE, "wrt": at_input, "mode": {"integrated": _STEPS}},
        "way": {"of": _PREFERENCE, "wrt": inside, "mode": {"integrated": _STEPS, "baseline": "clean"}},
    }
    runs = {name: {"input": COLOSSEUM, "grad": grad} for name, grad in grads.items()}
    returned = [f"{name}.{wrt}" for name, grad in grads.items() for wrt in grad["wrt"]]
    return Experiment("gradients", [plan(sides() | runs, *returned)], _attribution, absolute=_ATTRIBUTIONS)


def _preference(seen: Seen) -> Tensor:
    """How much higher the logit of the first answer is than that of the second, at the last position."""
    last = seen.logits[0, -1, ANSWERS]
    return last[0] - last[1]


def _attribution(plain: Plain) -> Found:
    points = ("mlp_out", "z", "resid_post", "attn_out")
    sites = ["embeddings", *(site for point in points for site in plain.every(point))]
    clean = _graphed(plain, TOWER, sites)
    corrupt = _graphed(plain, COLOSSEUM, sites)
    logprob = torch.log_softmax(corrupt.logits[0, -1], -1)
    by_preference = gradients(_preference(corrupt), corrupt.sites)
    delta = {site: (by_preference[site] * (clean[site] - corrupt[site]))[0].detach() for site in sites}
    layered = {point: torch.stack([delta[site] for site in plain.every(point)]) for point in points}
    (saliency,) = gradients(logprob[ANSWERS[0]], {"x": corrupt["embeddings"]}).values()
    fixed = torch.log_softmax(clean.logits[0, -1].detach(), -1)
    apart = (fixed.exp() * (fixed - logprob)).sum()
    outputs = {site: corrupt[site] for site in plain.every("attn_out")}
    found = {
        "patch.mlp_out": layered["mlp_out"],
        "patch.z": plain.split(layered["z"]),
        "patch.resid_post": layered["resid_post"],
        "saliency.g": saliency[0],
        "times.g": (saliency * corrupt["embeddings"])[0],
        "apart.g": torch.cat(list(gradients(apart, outputs).values())),
        "zero.g": _integrated(plain, corrupt, "embeddings", torch.zeros(1)),
        "way.g": _integrated(plain, corrupt, _INTEGRATED, clean[_INTEGRATED].detach()),
    }
    return {f"0.{name}": value.detach().numpy() for name, value in found.items()}


def _graphed(plain: Plain, text: str, sites: list[str], edits: Edits = ()) -> Seen:
    """A forward whose values can be differentiated from the embeddings on."""
    begin: Edits = [("embeddings", lambda rows: rows.detach().requires_grad_())]
    return plain.run(plain.ids(text), sites, [*begin, *edits])


def _integrated(plain: Plain, own: Seen, site: str, baseline: Tensor) -> Tensor:
    """The mean gradient at the middles of equal steps from the baseline, times the way."""
    there = own[site].detach()
    total = torch.zeros_like(there)
    for step in range(_STEPS):
        between = baseline + (step + 0.5) / _STEPS * (there - baseline)
        seen = _graphed(plain, COLOSSEUM, [site], [(site, become(between.requires_grad_()))])
        total += gradients(_preference(seen), seen.sites)[site]
    return ((there - baseline) * total / _STEPS)[0]


_ATTRIBUTED = (19, 24)
"""Layers whose heads are told apart."""


def direct() -> Experiment:
    """What each part adds to the difference of two logits by itself, with the last norm's scale held fixed.

    The direction that reads this difference off the stream is the output matrix's, through the norm's
    weights and scale, none of which a plan can read. It follows from what a plan can: the gradient at the
    end of the stream is that direction less its component along the stream, since the norm takes no notice
    of how long the stream is; and along the stream it is the difference itself.
    """
    last = {"pos": "last"}
    parts = {"embeddings": "embeddings", "attention": "attn_out_post.*", "mlps": "mlp_out_post.*"}
    grad = {"of": _PREFERENCE, "wrt": {"end": {"at": "resid_post.29"} | last}}
    answers = {"at": "lm_head", "unit": ANSWERS} | last
    whole = {
        "input": TOWER,
        "grad": grad,
        "read": {"stream": {"at": "resid_post.29"} | last, "logits": answers},
    }
    runs: dict[str, Any] = {"whole": whole}
    sides = {"across": "whole.end", "along": "whole.stream"}
    runs["parts"] = {
        "input": TOWER,
        "read": {
            f"{name}_{side}": {"at": at, "reduce": {"project": direction}} | last
            for name, at in parts.items()
            for side, direction in sides.items()
        },
    }
    for layer in _ATTRIBUTED:
        for side, direction in sides.items():
            dot = {"dot": [{"at": f"attn_out.{layer}"} | last, direction]}
            wrt = {"z": {"at": f"z.{layer}"} | last}
            runs[f"heads{layer}_{side}"] = {
                "input": TOWER,
                "grad": {"of": dot, "wrt": wrt, "mode": "grad_x_input"},
            }
    returned = ["whole.stream", "whole.logits", *(f"parts.{name}" for name in runs["parts"]["read"])]
    returned += [f"{name}.z" for name in runs if name.startswith("heads")]
    return Experiment("direct", [plan(runs, *returned)], _direct, _contributions, absolute=("",))


_EPSILON = 1e-5
"""Of the last norm."""


def _contributions(found: Found) -> Found:
    """What the parts add, from their components across and along the stream."""
    stream, logits = found["0.whole.stream"][0].astype(np.float64), found["0.whole.logits"][0]
    share = float(logits[0] - logits[1]) / (np.square(stream).sum() + len(stream) * _EPSILON)

    def both(name: str, reduce: Callable[[Any], Any] = lambda value: value) -> Any:
        across, along = (reduce(found[f"0.{name.format(side)}"]) for side in ("across", "along"))
        return (across + along * share).astype(np.float32)

    parts = {name: both(f"parts.{name}_{{}}") for name in ("embeddings", "attention", "mlps")}
    heads = {
        f"heads{layer}": both(f"heads{layer}_{{}}.z", lambda value: value.sum(-1)) for layer in _ATTRIBUTED
    }
    total = np.asarray([sum(float(part.sum()) for part in parts.values())], np.float32)
    return parts | heads | {"sum": total}


def _direct(plain: Plain) -> Found:
    sites = ["embeddings", "resid_post.29", *plain.every("attn_out"), *plain.every("mlp_out")]
    sites += [f"z.{layer}" for layer in _ATTRIBUTED]
    seen = plain.run(plain.ids(TOWER), sites, only_last=True)
    norm, unembedding = plain.model.model.norm, plain.model.lm_head.weight
    stream = seen["resid_post.29"][0, -1]
    scale = torch.sqrt(stream.square().mean() + norm.variance_epsilon)
    direction = norm.weight * (unembedding[ANSWERS[0]] - unembedding[ANSWERS[1]]) / scale
    found = {
        "embeddings": seen["embeddings"][0, -1:] @ direction,
        "attention": seen.layers("attn_out", slice(-1, None)) @ direction,
        "mlps": seen.layers("mlp_out", slice(-1, None)) @ direction,
        "sum": _preference(seen)[None],
    }
    for layer in _ATTRIBUTED:
        output = plain.model.model.layers[layer].self_attn.o_proj.weight
        each = plain.split(seen[f"z.{layer}"][0, -1] * (output.T @ direction))
        found[f"heads{layer}"] = each.sum(-1)[None]
    return {name: value.detach().numpy() for name, value in found.items()}
