"""Linear layers whose rows do not know of each other.

A library's matrix product may choose another order of summation for another number of rows; then an answer
depends on who else is in the batch. Ours sums each number in one order whatever the rows: `kernels.tile`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from transom.engine.attention import floats
from transom.engine.kernels import squares
from transom.engine.kernels.amx import HAS_AMX
from transom.engine.kernels.arrays import Floats, Operand, Panels
from transom.engine.kernels.layer import Factor, product
from transom.engine.kernels.product import COLUMNS, pack
from transom.engine.kernels.tile import HAS_BFLOAT16_DOT
from transom.errors import ModelRefused

_NO_BIAS: Floats = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class Weight:
    """What a product multiplies by."""

    matrix: Tensor
    """[out, in]."""
    bias: Tensor | None

    @staticmethod
    def of(layer: nn.Linear | Conv1D) -> Weight:
        """The weight of a layer; Conv1D holds it transposed."""
        matrix = layer.weight.detach()
        bias = None if layer.bias is None else layer.bias.detach()
        return Weight(matrix.T.contiguous() if isinstance(layer, Conv1D) else matrix, bias)

    @staticmethod
    def stacked(layers: Sequence[nn.Linear]) -> Weight:
        """One weight for layers that are fed the same rows; their outputs lie side by side."""
        matrix = torch.cat([layer.weight.detach() for layer in layers])
        if all(layer.bias is None for layer in layers):
            return Weight(matrix, None)
        zero = matrix.new_zeros
        return Weight(
            matrix,
            torch.cat([zero(x.out_features) if x.bias is None else x.bias.detach() for x in layers]),
        )


class Product:
    """Multiplication by one weight, which it keeps in a layout of its own.

    Products are summed in float32. A bfloat16 weight meets rows rounded to bfloat16, as in the plain model;
    its result is not rounded.
    """

    def __init__(self, weight: Weight) -> None:
        matrix = weight.matrix
        self.out_features, self.in_features = matrix.shape
        self._bias = _NO_BIAS if weight.bias is None else floats(weight.bias)
        self._threads = numba.get_num_threads()
        paired = matrix.dtype == torch.bfloat16 and HAS_BFLOAT16_DOT
        columns = squares.COLUMNS if paired and HAS_AMX else COLUMNS
        self._panels = pack(_pairs(matrix) if paired else _numbers(matrix), columns)

    @property
    def factor(self) -> Factor:
        """As kernels are given it."""
        return self._panels, self._bias, self.out_features

    def move(self, place: Panels) -> None:
        """Keep the weight there from now on, in an array like that of `factor`."""
        place[...] = self._panels
        self._panels = place

    def __call__(self, rows: Operand) -> Floats:
        """[rows, in] to [rows, out]."""
        return product(rows, self.factor, self._threads)


def arithmetic(dtype: torch.dtype) -> str:
    """What products with weights of this type compute, for the engine profile."""
    if dtype == torch.float32:
        return "tiles/float32/v1"
    if not HAS_BFLOAT16_DOT:
        return "tiles/bfloat16-fma/v1"
    return "tiles/bfloat16-amx/v1" if HAS_AMX else "tiles/bfloat16-dot/v1"


class InvariantLinear(nn.Module):
    """Stands in for `nn.Linear` and for transformers' `Conv1D` (the same with its weight transposed)."""

    def __init__(self, original: nn.Linear | Conv1D) -> None:
        super().__init__()
        # The product keeps what it multiplies by; a second copy would be idle.
        self._product = Product(Weight.of(original))
        self.out_features = self._product.out_features

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        out = torch.from_numpy(self._product(floats(inputs.reshape(-1, inputs.shape[-1]))))
        return out.to(inputs.dtype).view(*inputs.shape[:-1], self.out_features)


def linears(model: nn.Module) -> list[tuple[str, nn.Linear | Conv1D]]:
    """Every linear layer of a model, by name.

    Raises:
        ModelRefused: a layer is a subclass with arithmetic of its own, such as a quantised one.
    """
    found: list[tuple[str, nn.Linear | Conv1D]] = []
    for name, module in model.named_modules():
        if type(module) in (nn.Linear, Conv1D):
            found.append((name, module))
        elif isinstance(module, nn.Linear):
            raise ModelRefused(
                f"{name} is a {type(module).__name__}, whose arithmetic is not known to be exact"
            )
    return found


def replace_linears(model: nn.Module) -> None:
    """Put an `InvariantLinear` in the place of every linear layer, in place."""
    for name, layer in linears(model):
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, InvariantLinear(layer))


def _numbers(matrix: Tensor) -> Panels:
    """float32 as it is; bfloat16 as its bits."""
    if matrix.dtype == torch.bfloat16:
        return matrix.contiguous().view(torch.int16).numpy().view(np.uint16)
    return floats(matrix)


def _pairs(matrix: Tensor) -> Panels:
    """[out, in] in bfloat16 to [out, pairs]; a zero joins the last where their number is odd."""
    even = nn.functional.pad(matrix, (0, matrix.shape[1] % 2))
    return _numbers(even).view(np.uint32)
