"""The one table of points: places inside a model whose values can be read, replaced and differentiated.

The names are those of interp-engine, with `name.layer`. Names that TransformerLens and nnterp have for the
very same values, and paths of transformers' modules, are accepted as aliases; a name of theirs that means
something close, but not the same, is refused with the reason: a value that is nearly right has the right
shape, and nobody would notice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Literal, NamedTuple

from transom.schema.module_names import module_point

MAX_LAYER = 9999
"""Highest layer that a name can hold; which ones there are depends on the model."""

LAYER_PLACEHOLDER = "{layer}"

Width = Literal["residual", "heads*dim", "kv_heads*dim", "neurons", "keys", "vocabulary"]
"""What a point's value counts. Where there are heads, they are an axis of their own, and the last axis is as
wide as one head; `keys` are the positions that a query looks at."""

Layers = int | tuple[int, int] | Literal["all", "{layer}"] | None
"""One layer, a range (both ends included), all of them, the layer of a sweep, or none at a global point."""


class PointRefused(ValueError):
    """A name that is no point, or not one that may stand there; the message says the remedy."""


@dataclass(frozen=True, slots=True)
class Point:
    """One place inside a model."""

    name: str
    layered: bool
    """Whether every layer has one; the others are global."""
    width: Width
    has_heads: bool
    readable: bool
    writable: bool
    differentiable: bool
    """What can be replaced can be differentiated: both put a value of ours into the computation."""
    description: str


def _global(name: str, width: Width, description: str, *, writable: bool = True) -> Point:
    return Point(name, False, width, False, True, writable, writable, description)


def _layered(name: str, width: Width, description: str) -> Point:
    return Point(name, True, width, False, True, True, True, description)


def _by_head(name: str, width: Width, description: str, *, writable: bool = True) -> Point:
    return Point(name, True, width, True, True, writable, writable, description)


POINTS: dict[str, Point] = {
    point.name: point
    for point in (
        _global("embeddings", "residual", "Output of the token embedding, before positions are added."),
        _layered("resid_pre", "residual", "The residual stream that enters the layer."),
        _layered("attn_in", "residual", "Input of the attention, after the norm in front of it."),
        _by_head("q", "heads*dim", "Queries as projected, before any norm and before rotation."),
        _by_head("k", "kv_heads*dim", "Keys as projected, before any norm and before rotation."),
        _by_head("value", "kv_heads*dim", "Values as projected."),
        _by_head("q_rot", "heads*dim", "Queries after norm and rotation."),
        _by_head("k_rot", "kv_heads*dim", "Keys after norm and rotation; read only.", writable=False),
        _by_head(
            "attn_scores", "keys", "Scores of each key before the softmax, masked; read only.", writable=False
        ),
        _by_head("attn_probs", "keys", "Attention pattern: the softmax of the scores."),
        _by_head("z", "heads*dim", "Output of each head, before the last projection."),
        _layered("attn_out", "residual", "Output of the attention, after the last projection."),
        _layered(
            "attn_out_post",
            "residual",
            "What the attention adds to the residual stream: `attn_out`, after the norm that some models put "
            "there.",
        ),
        _layered("resid_mid", "residual", "The residual stream between attention and MLP."),
        _layered("mlp_in", "residual", "Input of the MLP, after the norm in front of it."),
        _layered("mlp_pre", "neurons", "Input of the activation function; in a gated MLP, the gate's."),
        _layered("mlp_pre_linear", "neurons", "The other branch of a gated MLP, which the gate multiplies."),
        _layered("mlp_act", "neurons", "Neurons: the input of the MLP's last projection."),
        _layered("mlp_out", "residual", "Output of the MLP, after the last projection."),
        _layered(
            "mlp_out_post",
            "residual",
            "What the MLP adds to the residual stream: `mlp_out`, after the norm that some models put there.",
        ),
        _layered("resid_post", "residual", "The residual stream that leaves the layer."),
        _global("final_norm", "residual", "Output of the last norm, which the output matrix reads."),
        _global("lm_head", "vocabulary", "Logits; read only.", writable=False),
    )
}
"""Every point, by its name, in the order of the computation."""


TRANSFORMER_LENS_BLOCK: dict[str, str] = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    # Of a block, these two are what is added to the residual stream; of a module, its own output.
    "hook_attn_out": "attn_out_post",
    "hook_mlp_out": "mlp_out_post",
    "attn.hook_out": "attn_out",
    "mlp.hook_out": "mlp_out",
    # Of a module, this is what it is called with; of a block (see below), it is what its norm reads.
    "attn.hook_in": "attn_in",
    "mlp.hook_in": "mlp_in",
    "attn.hook_q": "q",
    "attn.hook_k": "k",
    "attn.hook_v": "value",
    "attn.hook_rot_q": "q_rot",
    "attn.hook_rot_k": "k_rot",
    "attn.hook_attn_scores": "attn_scores",
    "attn.hook_pattern": "attn_probs",
    "attn.hook_z": "z",
    "mlp.hook_pre": "mlp_pre",
    "mlp.hook_pre_linear": "mlp_pre_linear",
    "mlp.hook_post": "mlp_act",
}
"""What stands after `blocks.N.` in TransformerLens, and the point of the same value."""

TRANSFORMER_LENS_GLOBAL: dict[str, str] = {"hook_embed": "embeddings", "unembed.hook_in": "final_norm"}

NNTERP: dict[str, str] = {
    "layers_input": "resid_pre",
    "layers_output": "resid_post",
    "attentions_input": "attn_in",
    "attentions_output": "attn_out",
    "mlps_input": "mlp_in",
    "mlps_output": "mlp_out",
}
"""nnterp's accessors, as in `layers_output[5]`: inputs and outputs of modules, without norms of the block."""

_INSIDE_A_NORM = (
    "is the value inside the norm, before its weight is multiplied in (and TransformerLens may fold that "
    "weight away); "
)
_OF_A_BLOCK = "is the residual stream in front of the norm, copied for each head; "

NEARLY: dict[str, str] = {
    "hook_attn_in": _OF_A_BLOCK + "use resid_pre for that, or attn_in for what follows the norm",
    "hook_q_input": _OF_A_BLOCK + "use resid_pre for that, or attn_in for what follows the norm",
    "hook_k_input": _OF_A_BLOCK + "use resid_pre for that, or attn_in for what follows the norm",
    "hook_v_input": _OF_A_BLOCK + "use resid_pre for that, or attn_in for what follows the norm",
    "hook_mlp_in": "is the residual stream in front of the norm; use resid_mid for that (resid_pre where "
    "attention and MLP run side by side), or mlp_in for what follows the norm",
    "ln1.hook_normalized": _INSIDE_A_NORM + "use attn_in for the output of that norm",
    "ln2.hook_normalized": _INSIDE_A_NORM + "use mlp_in for the output of that norm",
    "ln1.hook_scale": "is a number inside a norm and no point; use resid_pre, which that norm reads",
    "ln2.hook_scale": "is a number inside a norm and no point; use resid_mid, which that norm reads "
    "(resid_pre where attention and MLP run side by side)",
    "attn.hook_result": "is each head's share of the attention's output and no point; use z, which is the "
    "same before the last projection",
    "ln_final.hook_normalized": _INSIDE_A_NORM + "use final_norm for the output of that norm",
    "ln_final.hook_scale": "is a number inside a norm and no point; use the last layer's resid_post",
    "hook_pos_embed": "holds the positions' embedding alone and is no point; resid_pre.0 holds the sum",
}
"""Names of TransformerLens that mean something close to a point, and what to ask for instead."""


class SiteName(NamedTuple):
    """What `at` of a site says."""

    point: str
    layers: Layers

    @property
    def canonical(self) -> str:
        """Its canonical spelling, such as `resid_post.5`, `resid_post.*` or `final_norm`."""
        match self.layers:
            case None:
                return self.point
            case "all":
                return f"{self.point}.*"
            case (first, last):
                return f"{self.point}.{first}-{last}"
            case layer:
                return f"{self.point}.{layer}"


_TRANSFORMER_LENS = re.compile(r"blocks\.(?P<layers>[^.]+)\.(?P<hook>.+)")
_NNTERP = re.compile(r"(?P<accessor>[a-z_]+)\[(?P<layers>[^\]]+)\]")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,3}", re.ASCII)
_RANGE = re.compile(r"(0|[1-9][0-9]{0,3})-(0|[1-9][0-9]{0,3})", re.ASCII)


@lru_cache(maxsize=4096)
def parse_site_name(at: str) -> SiteName:
    """The point and the layers that `at` names, be it canonical or an alias.

    Raises:
        PointRefused: there is no such point, or its layer is missing, too much or malformed.
    """
    if found := _TRANSFORMER_LENS.fullmatch(at):
        return _aliased(at, found["hook"], TRANSFORMER_LENS_BLOCK, found["layers"])
    if found := _NNTERP.fullmatch(at):
        return _aliased(at, found["accessor"], NNTERP, found["layers"])
    if at in TRANSFORMER_LENS_GLOBAL or at in NEARLY:
        return _aliased(at, at, TRANSFORMER_LENS_GLOBAL, None)
    if at not in POINTS and (module := module_point(at)) is not None:
        return _placed(at, *module)
    name, dot, layers = at.partition(".")
    return _placed(at, name, layers if dot else None)


def _aliased(at: str, name: str, aliases: dict[str, str], layers: str | None) -> SiteName:
    if name in NEARLY:
        raise PointRefused(f"TransformerLens's {name} {NEARLY[name]}")
    if name not in aliases:
        raise _unknown(at)
    return _placed(at, aliases[name], layers)


def _placed(at: str, name: str, layers: str | None) -> SiteName:
    if name not in POINTS:
        raise _unknown(at)
    if not POINTS[name].layered:
        if layers is not None:
            raise PointRefused(f"{name} exists once in a model and takes no layer; write {name}")
        return SiteName(name, None)
    if layers is None:
        raise PointRefused(f"every layer has its own {name}; add which, as in {name}.5, or {name}.* for all")
    return SiteName(name, _layers(name, layers))


def _layers(name: str, text: str) -> Layers:
    if text == "*":
        return "all"
    if text == LAYER_PLACEHOLDER:
        return "{layer}"
    if _NUMBER.fullmatch(text):
        return int(text)
    found = _RANGE.fullmatch(text)
    if found is None:
        raise PointRefused(
            f"{_short(text)} is no layer; write a number from 0 to {MAX_LAYER}, as in {name}.5, a range, as "
            f"in {name}.3-7, or {name}.*"
        )
    first, last = int(found[1]), int(found[2])
    if first > last:
        raise PointRefused(
            f"the layers {first}-{last} are none; write the lower first, {name}.{last}-{first}"
        )
    return first, last


def _unknown(at: str) -> PointRefused:
    name = re.sub(r"^blocks\.[^.]+\.", "blocks.N.", at)
    name = name if name.startswith("blocks.") else name.partition(".")[0].partition("[")[0]
    near = get_close_matches(name, _known(), n=3, cutoff=0.5)
    remedy = f"the nearest are {', '.join(near)}" if near else f"the points are {', '.join(POINTS)}"
    return PointRefused(f"{_short(at)} is no point; {remedy}")


def _known() -> list[str]:
    blocks = [f"blocks.N.{hook}" for hook in TRANSFORMER_LENS_BLOCK]
    return [*POINTS, *blocks, *TRANSFORMER_LENS_GLOBAL, *NNTERP]


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
