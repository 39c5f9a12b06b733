"""Which values, taken together, tell of which weight matrix.

Whoever knows what goes into a linear map and what comes out of it, for as many independent inputs as it is
wide, knows the map. Below, each matrix of a layer is named with both of its sides, and each side with the
values that tell of it: some by themselves, others only together. What a norm or a rotation makes of a value
counts as the value, for both are known but for a few numbers.

Numbers are counted, and a matrix is told of by as many of its own as the smaller side has. This bounds what
linear algebra can recover; see docs/explanation/information-budget.md for what it does not bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from transom.schema.changes import GLOBAL
from transom.schema.program import ModelPoint

Plane: TypeAlias = Literal["value", "gradient"]

Side: TypeAlias = tuple[tuple[str, ...], ...]
"""Ways to know a side: the places of each are needed together. Empty where it is known anyway."""

_STREAM = "resid_post"

_SAME = {
    "q_rot": "q",
    "k_rot": "k",
    "attn_out_post": "attn_out",
    "mlp_out_post": "mlp_out",
    "attn_scores": "attn_probs",
}
"""Points whose values follow from another's at the same layer, or nearly."""

_NORMED = {"attn_in": "resid_pre", "final_norm": _STREAM}
"""Values behind a norm, and the one before it. Their gradients are not each other's."""


def place(point: str, layer: int, layers: int, plane: Plane = "value") -> str:
    """What is counted for a point: points with the same values share one place.

    Args:
        point: its name.
        layer: of the point; GLOBAL where it belongs to none.
        layers: of the model.
        plane: whether its value is meant, or the gradient with respect to it.
    """
    point = _SAME.get(point, point)
    if plane == "gradient":
        return f"gradient {_named(point, layer, layers)}"
    return _named(_NORMED.get(point, point), layer, layers)


def _named(point: str, layer: int, layers: int) -> str:
    if point == "resid_pre":
        point, layer = (_STREAM, layer - 1) if layer else ("embeddings", GLOBAL)
    if point == _STREAM and layer == GLOBAL:
        layer = layers - 1
    return point if layer == GLOBAL else f"{point}.{layer}"


def at_first(name: str) -> str:
    """The place of what a value is where attention mixes nothing: see `Matrices`."""
    return f"first {name}"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Vectors that a matrix maps, and what they are mapped to."""

    given: Side
    given_width: int
    """Numbers of a vector: so many independent ones tell all."""
    told: Side
    told_width: int

    def share(self, numbers: Mapping[str, int]) -> float:
        """The share of the matrix that is told of; 1 is all of it.

        Args:
            numbers: known of each place.
        """
        told = _known(self.told, numbers) / self.told_width
        given = _known(self.given, numbers) / self.given_width if self.given else told
        return min(given, told) / self.given_width


def _known(side: Side, numbers: Mapping[str, int]) -> int:
    return sum(min(numbers.get(name, 0) for name in together) for together in side)


@dataclass(frozen=True, slots=True)
class Matrix:
    """A linear map of the model, and every way in which pairs of it can be known."""

    name: str
    """As transformers calls it, with its layer."""
    pairs: tuple[Pairs, ...]

    @property
    def places(self) -> frozenset[str]:
        """Everything that tells of it."""
        sides = (side for pair in self.pairs for side in (pair.given, pair.told))
        return frozenset(name for side in sides for together in side for name in together)

    def share(self, numbers: Mapping[str, int]) -> float:
        """The share of it that is told of."""
        return sum(pair.share(numbers) for pair in self.pairs)


class Matrices:
    """The linear maps of one model.

    Args:
        points: that it has.
        vocabulary: rows of the output matrix.
        hidden: width of the residual stream.
    """

    def __init__(self, points: Sequence[ModelPoint], vocabulary: int, hidden: int) -> None:
        self._points = points
        self._hidden = hidden
        self.layers = 1 + max((layer for point in points for layer in point.layers), default=0)
        found = [matrix for layer in range(self.layers) for matrix in self._of_layer(layer)]
        self.all = [*found, *self._at_the_ends(vocabulary)]

    @staticmethod
    @lru_cache(maxsize=16)
    def of(points: tuple[ModelPoint, ...], vocabulary: int, hidden: int) -> Matrices:
        """Those of a model; the same object each time."""
        return Matrices(points, vocabulary, hidden)

    def touched(self, places: frozenset[str]) -> Iterator[Matrix]:
        """Those that any of some places tells of."""
        return (matrix for matrix in self.all if matrix.places & places)

    def _width(self, name: str, layer: int) -> int:
        """Numbers of a row at a point; 0 where the layer has none, or the sequence decides."""
        for point in self._points:
            if point.name == name and layer in point.layers:
                return point.heads * point.width
        return 0

    def _of_layer(self, layer: int) -> Iterator[Matrix]:
        yield from self._projections(layer)
        yield from self._mixing(layer)
        yield from self._mlp(layer)

    def _at(self, layer: int, *points: str, plane: Plane = "value") -> tuple[str, ...]:
        return tuple(place(point, layer, self.layers, plane) for point in points)

    def _side(self, layer: int, *ways: str, plane: Plane = "value") -> Side:
        """Ways, each the names of points that are needed together."""
        return tuple(self._at(layer, *way.split(), plane=plane) for way in ways)

    def _projections(self, layer: int) -> Iterator[Matrix]:
        """Queries, keys and values."""
        told = {"q": ("q",), "k": ("k",), "value": ("value", "z attn_probs")}
        for point, ways in told.items():
            if width := self._width(point, layer):
                forward = self._forward(layer, ("resid_pre",), self._hidden, ways, width)
                backward = self._backward(layer, (point,), width, ("attn_in", "resid_mid resid_pre"))
                yield Matrix(f"{point[0]}_proj.{layer}", (forward, backward))

    def _mixing(self, layer: int) -> Iterator[Matrix]:
        """What attention multiplies together: queries by keys, values by the output's matrix."""
        query, key, mixed = (self._width(point, layer) for point in ("q", "k", "z"))
        hidden = self._hidden
        if query and key:
            pattern = self._forward(layer, ("resid_pre",), hidden, ("attn_probs",), query + key)
            yield Matrix(f"q_proj and k_proj.{layer}", (pattern,))
        # A position that sees itself alone, or by a pattern that is written, is mapped by both at once.
        given = tuple((at_first(name),) for name in self._at(layer, "resid_pre"))
        told = tuple(
            tuple(map(at_first, way)) for way in self._side(layer, "attn_out", "resid_mid resid_pre")
        )
        yield Matrix(f"v_proj and o_proj.{layer}", (Pairs(given, hidden, told, hidden),))
        if mixed:
            out = ("attn_out", "resid_mid resid_pre")
            forward = self._forward(layer, ("z", "value attn_probs"), mixed, out, hidden)
            backward = self._backward(layer, ("attn_out", "resid_mid"), hidden, ("z",), mixed)
            yield Matrix(f"o_proj.{layer}", (forward, backward))

    def _mlp(self, layer: int) -> Iterator[Matrix]:
        neurons, hidden = self._width("mlp_act", layer), self._hidden
        is_gated = bool(self._width("mlp_pre_linear", layer))
        before: tuple[str, ...] = ("mlp_in", "resid_mid", "resid_pre attn_out")
        if not self._width("resid_mid", layer):
            before = (*before, "resid_pre")
        behind = ("mlp_in", "resid_mid resid_post")
        for name, point in (
            ("gate_proj" if is_gated else "up_proj", "mlp_pre"),
            ("up_proj", "mlp_pre_linear"),
        ):
            if width := self._width(point, layer):
                # Neurons tell of both branches: two rows are few unknowns for as many numbers as one likes.
                forward = self._forward(layer, before, hidden, (point, "mlp_act"), width)
                backward = self._backward(layer, (point, "mlp_act"), width, behind)
                yield Matrix(f"{name}.{layer}", (forward, backward))
        if neurons:
            given = ("mlp_act", "mlp_pre mlp_pre_linear" if is_gated else "mlp_pre")
            out = ("mlp_out", "resid_mid resid_post", "resid_pre attn_out resid_post")
            forward = self._forward(layer, given, neurons, out, hidden)
            told = ("mlp_act", "mlp_pre", "mlp_pre_linear")
            backward = self._backward(layer, ("mlp_out", "resid_post"), hidden, told, neurons)
            yield Matrix(f"down_proj.{layer}", (forward, backward))

    def _forward(
        self, layer: int, given: Sequence[str], width: int, told: Sequence[str], told_width: int
    ) -> Pairs:
        return Pairs(self._side(layer, *given), width, self._side(layer, *told), told_width)

    def _backward(
        self, layer: int, given: Sequence[str], width: int, told: Sequence[str], told_width: int = 0
    ) -> Pairs:
        """Gradients behind a map, and those before it, which are the others times the map."""
        return Pairs(
            self._side(layer, *given, plane="gradient"),
            width,
            self._side(layer, *told, plane="gradient"),
            told_width or self._hidden,
        )

    def _at_the_ends(self, vocabulary: int) -> Iterator[Matrix]:
        """The embeddings, whose rows are read as they are, and the output matrix by gradients.

        Logits and logprobs are counted elsewhere, as `released_rank`.
        """
        last, hidden = self.layers - 1, self._hidden
        rows = ((place("embeddings", GLOBAL, self.layers),),)
        yield Matrix("embed_tokens", (Pairs((), vocabulary, rows, hidden),))
        behind = self._side(last, "resid_post", plane="gradient")
        normed = ((place("final_norm", GLOBAL, self.layers, "gradient"),),)
        yield Matrix("lm_head", (Pairs((), vocabulary, (*behind, *normed), hidden),))
