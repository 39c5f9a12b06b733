"""`GET /v1/points`: what can be read and written inside a model."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from transom.schema.program import GLOBAL, ModelPoint

READ_ONLY = frozenset({"k_rot", "attn_scores"})
"""Points whose values are not what the model goes on with."""

MEANINGS = {
    "embeddings": "What the embedding matrix gives for the tokens",
    "resid_pre": "The residual stream before a layer",
    "attn_in": "What attention is given: the stream, normed where the model norms it",
    "q": "Queries, before norm and rotation",
    "k": "Keys, before norm and rotation",
    "value": "Values",
    "q_rot": "Queries as they meet the keys",
    "k_rot": "Keys as they meet the queries",
    "attn_scores": "Scaled and capped scores of each key, -inf where it is not seen",
    "attn_probs": "The weight of each key",
    "z": "What each head gives, before the last projection",
    "attn_out": "What attention gives",
    "attn_out_post": "What attention adds to the stream",
    "resid_mid": "The residual stream between attention and MLP",
    "mlp_in": "What the MLP is given",
    "mlp_pre": "Neurons before the activation",
    "mlp_pre_linear": "The branch of a gated MLP that is not activated",
    "mlp_act": "Neurons, as the last projection is given them",
    "mlp_out": "What the MLP gives",
    "mlp_out_post": "What the MLP adds to the stream",
    "resid_post": "The residual stream after a layer",
    "final_norm": "The stream after the last norm, which the output matrix is applied to",
}
"""Every point, in the order in which a forward comes by, and what it is. The names are interp-engine's; q, k,
q_rot and k_rot are ours."""


class PointView(BaseModel):
    """A point of a model."""

    model_config = ConfigDict(frozen=True)

    name: str
    meaning: str
    layers: tuple[int, ...] | None = Field(description="Those that have it; null where it belongs to none")
    heads: int | None = Field(description="How many heads its numbers are divided into; null for none")
    width: int | None = Field(
        description="Numbers of a position, or of each head; null for the length of the sequence"
    )
    dtype: str = Field("float32", description="Of what is read and written")
    readable: bool
    writable: bool
    differentiable: bool
    reason: str | None = Field(description="Why no layer has it")


class PointPage(BaseModel):
    """The points of a model."""

    model_config = ConfigDict(frozen=True)

    model: str
    deployment: str
    data: tuple[PointView, ...]


def views(points: Iterable[ModelPoint]) -> tuple[PointView, ...]:
    """In the order of a forward."""
    order = {name: index for index, name in enumerate(MEANINGS)}
    return tuple(_view(point) for point in sorted(points, key=lambda each: order[each.name]))


def _view(point: ModelPoint) -> PointView:
    there = bool(point.layers)
    return PointView(
        name=point.name,
        meaning=MEANINGS[point.name],
        layers=None if point.layers == (GLOBAL,) else point.layers,
        heads=point.heads if point.heads > 1 else None,
        width=(point.width or None) if there else None,
        readable=there,
        writable=there and point.name not in READ_ONLY,
        differentiable=False,
        reason=point.reason or None,
    )
