"""Matrix products whose rows do not know of each other.

A linear layer's kernel may choose another order of summation for another number of rows; then an answer
depends on who else is in the batch. Each kernel here makes that impossible or is proven not to do it, on the
machine at hand and on the shapes of the model at hand, by `choose_kernel`. The choice is part of the engine
profile. Kernels are tried from the fastest to the one that is right everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from transom.errors import ModelRefused

Product = Callable[[Tensor], Tensor]
"""[rows, in] to [rows, out]."""

_PROBE_ROWS = (1, 2, 3, 5, 8, 13, 24, 31, 32, 33, 64, 127, 256)


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
        return Weight(matrix.T.contiguous() if isinstance(layer, Conv1D) else matrix, layer.bias)

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

    @property
    def shape(self) -> tuple[int, int, bool]:
        """(out, in, whether there is a bias)."""
        return self.matrix.shape[0], self.matrix.shape[1], self.bias is not None


def _onednn(weight: Weight) -> Product:
    """OneDNN's product over a weight packed once. Private operators, so torch is pinned."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.matrix.contiguous(), 32)  # noqa: SLF001
    linear, bias = torch.ops.mkldnn._linear_pointwise.default, weight.bias  # noqa: SLF001
    return lambda rows: linear(rows, packed, bias, "none", [], "")


def _onednn_widened(weight: Weight) -> Product:
    """The float32 product of narrower numbers, rounded once: for machines without instructions for them."""
    bias = None if weight.bias is None else weight.bias.float()
    product, dtype = _onednn(Weight(weight.matrix.float(), bias)), weight.matrix.dtype
    return lambda rows: product(rows.float()).to(dtype)


def _aten(weight: Weight) -> Product:
    return lambda rows: nn.functional.linear(rows, weight.matrix, weight.bias)


def _row_by_row(weight: Weight) -> Product:
    """One product for each row: nothing is left that could depend on the others."""
    return lambda rows: torch.cat(
        [nn.functional.linear(row.clone(), weight.matrix, weight.bias) for row in torch.split(rows, 1)]
    )


@dataclass(frozen=True, slots=True)
class LinearKernel:
    """A way to multiply: its name, the multiple that rows are padded to, and how it is made for a weight."""

    name: str
    multiple: int
    make: Callable[[Weight], Product]
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)

    def __str__(self) -> str:
        return f"{self.name}/{self.multiple}"

    def bind(self, weight: Weight) -> Product:
        """The product with `weight`, for any number of rows."""
        product = self.make(weight)
        multiple = self.multiple

        def padded(rows: Tensor) -> Tensor:
            count = rows.shape[0]
            missing = -count % multiple
            if not missing:
                return product(rows)
            return product(torch.cat([rows, rows.new_zeros(missing, rows.shape[1])]))[:count]

        return padded


PLAIN = LinearKernel("aten", 1, _aten)
"""What torch does by itself: right, and not invariant."""

KERNELS = (
    LinearKernel("onednn-packed", 2, _onednn),
    LinearKernel("onednn-packed", 8, _onednn),
    LinearKernel("onednn-packed-float32", 2, _onednn_widened, (torch.bfloat16,)),
    LinearKernel("aten", 8, _aten),
    LinearKernel("aten-row-by-row", 1, _row_by_row),
)


class InvariantLinear(nn.Module):
    """Stands in for `nn.Linear` and for transformers' `Conv1D` (the same with its weight transposed)."""

    def __init__(self, original: nn.Linear | Conv1D, kernel: LinearKernel) -> None:
        super().__init__()
        weight = Weight.of(original)
        self.out_features = weight.matrix.shape[0]
        # The kernel keeps what it multiplies by, in its own layout; a second copy would be idle.
        self._product = kernel.bind(weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        return self._product(rows).view(*inputs.shape[:-1], self.out_features)


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


def choose_kernel(weights: Iterable[Weight]) -> LinearKernel:
    """The fastest kernel that gives every row the same bits in every company, on every shape in `weights`."""
    examples = {weight.shape: weight for weight in weights}
    for kernel in KERNELS:
        if all(_is_invariant(kernel, weight) for weight in examples.values()):
            return kernel
    raise ModelRefused("no kernel for matrix products is batch-invariant on this machine")


def _is_invariant(kernel: LinearKernel, weight: Weight) -> bool:
    matrix = weight.matrix
    if matrix.dtype not in kernel.dtypes:
        return False
    generator = torch.Generator().manual_seed(matrix.shape[0] * 7919 + matrix.shape[1])
    sample = torch.randn(max(_PROBE_ROWS), matrix.shape[1], generator=generator).to(matrix.dtype)
    threads = torch.get_num_threads()
    try:
        product = kernel.bind(weight)
        # One thread sets the reference, so that the number of threads drops out of the profile.
        torch.set_num_threads(1)
        reference = torch.cat([product(chunk) for chunk in torch.split(sample, 5)])
        torch.set_num_threads(threads)
        return all(
            torch.equal(product(sample[-rows:]), reference[-rows:])
            and torch.equal(product(sample[:rows]), reference[:rows])
            for rows in _PROBE_ROWS
        )
    except RuntimeError:  # this build of torch has no such kernel for this dtype
        return False
    finally:
        torch.set_num_threads(threads)


def replace_linears(model: nn.Module, kernel: LinearKernel) -> None:
    """Put an `InvariantLinear` in the place of every linear layer, in place."""
    for name, layer in linears(model):
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, InvariantLinear(layer, kernel))
