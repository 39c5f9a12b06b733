"""Paged attention behind the attention interface of transformers.

The modules of a model compute queries, keys and values and call the function registered for them; it stores
keys and values in our cache and attends by our kernel. Which rows belong to which sequence comes from
the `RowMap` that the runner sets before each forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel

from transom.engine.kernels.arrays import Floats, Ints, Longs, Operand
from transom.engine.kernels.attention import attend, blocks_of, no_sinks, store
from transom.engine.kernels.cache import PAGE, Cache, empty_cache, numbers_per_token, unpacked
from transom.engine.kernels.layer import Heads, Place
from transom.errors import ModelRefused
from transom.internals.restart import Pages

_instances = count()

# Keyword arguments that carry no arithmetic of their own: masks and positions are the kernel's business.
_HARMLESS = {"position_ids", "cache_position", "use_cache", "output_attentions", "is_causal", "dropout"}
_KNOWN = {"scaling", "sliding_window", "softcap", "s_aux"}


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """What one attention layer needs of the cache and the kernel."""

    heads: int
    kv_heads: int
    dim: int
    value_dim: int
    scale: float
    window: int
    softcap: float

    @property
    def shape(self) -> tuple[np.float32, int, np.float32]:
        """Scale, window and cap, as kernels are given them."""
        return np.float32(self.scale), self.window, np.float32(self.softcap)


@dataclass(frozen=True, slots=True)
class RowMap:
    """Where the packed rows of one forward belong."""

    tables: Ints
    """[sequences, pages]; unused entries are 0, the scratch page."""
    sequence: Ints
    """[rows]."""
    position: Ints
    """[rows]."""
    blocks: Ints
    """See `blocks_of`."""

    @staticmethod
    def of(tables: Ints, sequence: Ints, position: Ints) -> RowMap:
        """Find out which rows are computed side by side."""
        return RowMap(tables, sequence, position, blocks_of(sequence, position))

    @property
    def places(self) -> tuple[Ints, Ints, Ints]:
        """As kernels are given them."""
        return self.tables, self.sequence, self.position

    def first(self, count: int) -> RowMap:
        """The same for so many of the rows."""
        return RowMap.of(self.tables, self.sequence[:count], self.position[:count])

    @staticmethod
    def alone(rows: int) -> RowMap:
        """The first `rows` positions, at most PAGE, of one sequence that lies on page 1."""
        position = np.arange(rows, dtype=np.int32)
        return RowMap.of(np.ones((1, 1), np.int32), np.zeros_like(position), position)


class PagedAttention:
    """The cache of every layer, and the function that transformers calls for each of them."""

    def __init__(self) -> None:
        self.specs: dict[int, LayerSpec] = {}
        self._sinks: dict[int, Floats] = {}
        self._cache: dict[int, Cache] = {}
        self.whole_cache: Cache | None = None
        """The cache of all layers, [layers, …], where theirs are of one size."""
        self._rows: RowMap | None = None
        self._threads = numba.get_num_threads()

    def attach(self, model: PreTrainedModel) -> None:
        """Make `model` attend through this object, and learn its layers by one forward of two tokens.

        Raises:
            ModelRefused: the attention of a layer is not one that the kernel computes.
        """
        if not model._supports_attention_backend:  # noqa: SLF001
            raise ModelRefused(
                f"{type(model).__name__} does not call its attention through the attention interface of "
                "transformers (ALiBi and state-space models do not)"
            )
        # The registry is global; a name of its own keeps each model with its own cache. Where no mask belongs
        # to a name, transformers makes none: causality and windows are the kernel's.
        name = f"transom-{next(_instances)}"
        ALL_ATTENTION_FUNCTIONS.register(name, self)
        model.set_attn_implementation(name)
        ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
        with torch.inference_mode():
            model(input_ids=ids, position_ids=torch.arange(2, device=model.device)[None], use_cache=False)
        expected = model.config.get_text_config().num_hidden_layers
        if sorted(self.specs) != list(range(expected)):
            raise ModelRefused(
                f"{len(self.specs)} of {expected} layers attend through transformers' attention interface"
            )
        _check_windows(model, self.specs)

    def bytes_per_token(self, dtype: torch.dtype) -> int:
        """Memory that one token takes in the whole cache."""
        half = dtype == torch.bfloat16
        return dtype.itemsize * sum(
            numbers_per_token(spec.kv_heads, spec.dim, spec.value_dim, half=half)
            for spec in self.specs.values()
        )

    def allocate(self, pages: int, dtype: torch.dtype = torch.float32) -> None:
        """Make room for `pages` pages of PAGE tokens; page 0 is scratch. It holds `dtype`."""
        half = dtype == torch.bfloat16
        sizes = {(spec.kv_heads, spec.dim, spec.value_dim) for spec in self.specs.values()}
        if len(sizes) > 1:
            self.whole_cache = None
            for index, spec in self.specs.items():
                self._cache[index] = empty_cache(pages, spec.kv_heads, spec.dim, spec.value_dim, half=half)
            return
        keys, values = empty_cache(pages * len(self.specs), *sizes.pop(), half=half)
        keys, values = (part.reshape(-1, pages, *part.shape[1:]) for part in (keys, values))
        self.whole_cache = keys, values
        self._cache = {index: (keys[index], values[index]) for index in self.specs}

    def saved(self, pages: list[int]) -> Pages:
        """A copy of some pages of all layers."""
        return {index: (keys[pages], values[pages]) for index, (keys, values) in self._cache.items()}

    def restore(self, pages: list[int], saved: Pages, layer: int = 0) -> None:
        """Put the first of what was saved into as many pages, of the layers from that one on."""
        for index, kept in saved.items():
            if index >= layer:
                for part, own in zip(self._cache[index], kept, strict=True):
                    part[pages] = own[: len(pages)]

    @property
    def rows(self) -> RowMap:
        """Where the rows of this forward belong."""
        return self._mapped()

    def set_rows(self, rows: RowMap) -> None:
        """Say where the rows of the next forward belong."""
        self._rows = rows

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401
    ) -> tuple[Tensor, None]:
        """[1, heads, rows, dim] to [1, rows, heads, value_dim]; the signature is transformers'."""
        index = int(module.layer_idx)  # type: ignore[arg-type]
        if index not in self.specs:
            self.specs[index] = _inspect(module, query, key, value, kwargs)
            self._sinks[index] = _sinks(kwargs, query.shape[1])
            return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3]), None
        return self.attend(index, query, key, value), None

    def attend(self, index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Store keys and values of the rows in layer `index`, and attend.

        Args:
            index: of the layer.
            query: [1, heads, rows, dim].
            key: [1, kv_heads, rows, dim].
            value: [1, kv_heads, rows, value_dim].

        Returns:
            [1, rows, heads, value_dim].
        """
        rows = self._mapped()
        store(_rows(key), _rows(value), self._cache[index], rows.places)
        spec = self.specs[index]
        out = np.empty((query.shape[2], spec.heads, spec.value_dim), np.float32)
        self._attend(index, _rows(query), rows, out)
        return torch.from_numpy(out)[None].to(query.dtype)

    def heads(self, index: int, norms: tuple[Floats, Floats, np.float32]) -> Heads:
        """What kernels are told of layer `index`, whose queries and keys are normed so."""
        spec = self.specs[index]
        return self._cache[index], spec.shape, self._sinks[index], spec.value_dim, norms

    def stacked_sinks(self) -> Floats:
        """Sinks of all layers, [layers, heads]."""
        return np.stack([self._sinks[index] for index in sorted(self.specs)])

    def place(self, rotation: tuple[Floats, Floats]) -> Place:
        """What kernels are told of the rows of this forward, which are rotated so."""
        rows = self._mapped()
        return rows.places, rows.blocks, rotation

    def kept(self, index: int, rows: NDArray[np.intp]) -> tuple[Floats, Floats, Longs]:
        """What the cache of a layer holds of the sequence to which rows of this forward belong.

        Returns:
            Keys [kv_heads, slots, dim] and values [kv_heads, slots, value_dim], as numbers, and the position
            of each of the rows. Slots that nobody has computed yet hold anything.
        """
        tables, sequence, position = self._mapped().places
        positions = position[rows].astype(np.int64)
        pages = tables[sequence[rows[0]], : int(positions.max()) // PAGE + 1]
        spec = self.specs[index]
        keys, values = unpacked(self._cache[index], pages, spec.dim)
        return keys, np.ascontiguousarray(values[..., : spec.value_dim]), positions

    def _attend(self, index: int, query: Floats, rows: RowMap, out: Operand) -> None:
        spec = self.specs[index]
        attend(
            query,
            self._cache[index],
            rows.places,
            rows.blocks,
            spec.shape,
            self._sinks[index],
            spec.value_dim,
            out.reshape(out.shape[0], spec.heads, -1),
            self._threads,
        )

    def _mapped(self) -> RowMap:
        if self._rows is None:
            raise RuntimeError("a forward ran before its rows were mapped")
        return self._rows


def floats(tensor: Tensor) -> Floats:
    """A contiguous float32 array of the same numbers; a view where the tensor is that already."""
    array: Floats = tensor.to("cpu", torch.float32).contiguous().numpy()
    return array


def _rows(tensor: Tensor) -> Floats:
    """[1, heads, rows, dim] to a contiguous float32 [rows, heads, dim]."""
    return floats(tensor[0].transpose(0, 1))


def _sinks(kwargs: dict[str, Any], heads: int) -> Floats:
    sinks = kwargs.get("s_aux")
    if sinks is None:
        return no_sinks(heads)
    return floats(sinks.detach())


def _inspect(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, kwargs: dict[str, Any]
) -> LayerSpec:
    """Read a layer's geometry off its first call, and refuse what the kernel does not compute."""
    name = type(module).__name__
    strange = {
        key
        for key, item in kwargs.items()
        if key not in _HARMLESS | _KNOWN
        and (isinstance(item, Tensor) or key in {"head_mask", "position_bias"})
    }
    if strange:
        raise ModelRefused(
            f"{name} passes {', '.join(sorted(strange))} to its attention, which is not supported"
        )
    if getattr(module, "is_causal", True) is False:
        raise ModelRefused(f"{name} is not causal")
    scaling = kwargs.get("scaling")
    return LayerSpec(
        heads=query.shape[1],
        kv_heads=key.shape[1],
        dim=query.shape[3],
        value_dim=value.shape[3],
        scale=float(scaling if scaling is not None else query.shape[3] ** -0.5),
        window=int(kwargs.get("sliding_window") or 0),
        softcap=float(kwargs.get("softcap") or 0.0),
    )


def _check_windows(model: PreTrainedModel, specs: dict[int, LayerSpec]) -> None:
    """Layers that the configuration declares sliding must have told the kernel so, and no others."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or [None] * len(specs)
    for index, kind in enumerate(kinds):
        if kind not in (None, "full_attention", "sliding_attention"):
            raise ModelRefused(f"layer {index} is of kind {kind}, which is not supported")
        if kind is not None and (kind == "sliding_attention") != (specs[index].window > 0):
            raise ModelRefused(
                f"layer {index} is declared {kind} and attends over a window of {specs[index].window}"
            )
