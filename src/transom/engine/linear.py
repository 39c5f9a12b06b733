"""Matrix products whose rows do not know of each other.

A linear layer's kernel may choose another order of summation for another number of rows; then an answer
depends on who else is in the batch. Each kernel here makes that impossible or is proven not to do it, on the
machine at hand and on the shapes of the model at hand, by `choose_kernel`. The choice is part of the engine
profile. Kernels are tried from the fastest to the one that is right everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from transom.errors import ModelRefused

Product = Callable[[Tensor], Tensor]
"""[rows, in] to [rows, out]."""

_PROBE_ROWS = (1, 2, 3, 5, 8, 13, 24, 31, 32, 33, 64, 127, 256)


def _onednn(weight: Tensor, bias: Tensor | None) -> Product:
    """OneDNN's product over a weight packed once. Private operators, so torch is pinned."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 32)  # noqa: SLF001
    linear = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
    return lambda rows: linear(rows, packed, bias, "none", [], "")


def _aten(weight: Tensor, bias: Tensor | None) -> Product:
    return lambda rows: nn.functional.linear(rows, weight, bias)


def _row_by_row(weight: Tensor, bias: Tensor | None) -> Product:
    """One product for each row: nothing is left that could depend on the others."""
    return lambda rows: torch.cat(
        [nn.functional.linear(row.clone(), weight, bias) for row in torch.split(rows, 1)]
    )


@dataclass(frozen=True, slots=True)
class LinearKernel:
    """A way to multiply: its name, the multiple that rows are padded to, and how it is made for a weight."""

    name: str
    multiple: int
    make: Callable[[Tensor, Tensor | None], Product]

    def __str__(self) -> str:
        return f"{self.name}/{self.multiple}"

    def bind(self, weight: Tensor, bias: Tensor | None) -> Product:
        """The product with `weight` [out, in], for any number of rows."""
        product = self.make(weight, bias)
        multiple = self.multiple

        def padded(rows: Tensor) -> Tensor:
            count = rows.shape[0]
            missing = -count % multiple
            if missing:
                rows = torch.cat([rows, rows.new_zeros(missing, rows.shape[1])])
            return product(rows)[:count]

        return padded


KERNELS = (
    LinearKernel("onednn-packed", 2, _onednn),
    LinearKernel("onednn-packed", 8, _onednn),
    LinearKernel("aten", 8, _aten),
    LinearKernel("aten-row-by-row", 1, _row_by_row),
)


class InvariantLinear(nn.Module):
    """Stands in for `nn.Linear` and for transformers' `Conv1D` (the same with its weight transposed)."""

    def __init__(self, original: nn.Linear | Conv1D, kernel: LinearKernel) -> None:
        super().__init__()
        self.weight = original.weight
        self.bias = original.bias
        self.out_features = weight_of(original).shape[0]
        self._product = kernel.bind(weight_of(original), original.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        return self._product(rows).view(*inputs.shape[:-1], self.out_features)


def weight_of(module: nn.Linear | Conv1D) -> Tensor:
    """The weight as [out, in]."""
    return module.weight.detach().T.contiguous() if isinstance(module, Conv1D) else module.weight.detach()


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


def choose_kernel(layers: Iterable[nn.Linear | Conv1D]) -> LinearKernel:
    """The fastest kernel that gives every row the same bits in every company, on every shape in `layers`."""
    examples = {(tuple(weight_of(layer).shape), layer.bias is not None): layer for layer in layers}
    for kernel in KERNELS:
        if all(_is_invariant(kernel, layer) for layer in examples.values()):
            return kernel
    raise ModelRefused("no kernel for matrix products is batch-invariant on this machine")


def _is_invariant(kernel: LinearKernel, layer: nn.Linear | Conv1D) -> bool:
    weight = weight_of(layer)
    generator = torch.Generator().manual_seed(weight.shape[0] * 7919 + weight.shape[1])
    sample = torch.randn(max(_PROBE_ROWS), weight.shape[1], generator=generator).to(weight.dtype)
    threads = torch.get_num_threads()
    try:
        product = kernel.bind(weight, layer.bias)
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
