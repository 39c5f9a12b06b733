"""How large a served model is, as far as somebody must know who says beforehand what work on it costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Bytes that a forward holds for its backward, of `T` tokens: `fixed + row * T + pair * T * T`.

    What is kept of each position and layer is in `row`; the attention probabilities, which transformers' own
    modules keep for each head and pair of positions, in `pair`; the logits of one position in `fixed`.
    """

    fixed: int
    row: int
    pair: int

    def held(self, tokens: int) -> int:
        """Bytes that the graph of a forward of so many tokens holds."""
        return self.fixed + self.row * tokens + self.pair * tokens * tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimensions:
    """Of one model, as it is served."""

    layers: int
    width: int
    """Numbers of a position in the residual stream."""
    vocabulary: int
    """Rows of the output matrix."""
    weights: int
    """Numbers of the matrices that a row goes through, in all layers; of experts, all of them."""
    attention: int
    """Numbers of each key and its value that a query works on, of all heads in all layers."""
    cached: int
    """Numbers of keys and values that a position leaves, in all layers that show them."""
    enters: bool
    """Whether a row can come in at any layer, so that runs begin in the middle of others."""
    parameters: int
    graph: Graph | None
    """None where a forward cannot be differentiated."""
    gradient_bytes: int
    """Most memory that one gradient may take here, the model itself not counted."""

    def forward(self, layer_rows: int, pairs: int) -> int:
        """Floating-point operations of rows in layers.

        Two for each weight, and two for each number of the keys and values that a row attends to.

        Args:
            layer_rows: of each row, the layers that it goes through, added up.
            pairs: of each row, the positions that it attends to in each of these layers, added up.
        """
        return 2 * (self.weights * layer_rows + self.attention * pairs) // max(1, self.layers)

    def gradient(self, tokens: int, seen: int) -> int:
        """Bytes that a forward and its backward take at most, the model itself not counted.

        The graph, and what is asked about with its gradient; what one layer works with, forwards and
        backwards, about four times what it leaves in the graph; and half of all that again, which the
        allocator cannot give back in between. On SmolLM2-135M the process grew by 58 to 86 % of this.

        Args:
            tokens: of the prompt.
            seen: numbers of the places whose gradients are asked for, at all of its positions.
        """
        if self.graph is None:
            return 0
        held = self.graph.held(tokens)
        return 3 * (held + 4 * held // max(1, self.layers) + 8 * seen) // 2

    @property
    def copy(self) -> int:
        """Bytes of the model once more, in float32, which gradients are taken of."""
        return 4 * self.parameters

    def output(self, rows: int) -> int:
        """Floating-point operations of rows that go through the output matrix."""
        return 2 * self.width * self.vocabulary * rows
