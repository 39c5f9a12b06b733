"""Paged attention by torch, for devices that our kernels are not compiled for.

It computes what the kernels compute, by gathering pages and plain operations in float32. Its bits are
whatever the device's libraries make of a batch: an engine on such a device is right, and its profile says
that torch computes, for which nothing is promised to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transom.engine.attention import LayerSpec, PagedAttention, RowMap
from transom.engine.kernels.cache import PAGE


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive rows of one sequence, or single rows of several."""

    rows: Tensor
    """[sequences, rows of each], places in the packed batch."""
    tables: Tensor
    """[sequences, pages]."""
    positions: Tensor
    """[sequences, rows of each]."""


class TorchAttention(PagedAttention):
    """The cache of every layer on a device of torch.

    Args:
        device: where the model is.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device
        self._pages: dict[int, tuple[Tensor, Tensor]] = {}
        self._runs: list[_Run] = []
        self._slots = torch.empty(0, dtype=torch.long)

    def allocate(self, pages: int, dtype: torch.dtype = torch.float32) -> None:
        """Make room for `pages` pages of PAGE tokens; page 0 is scratch. It holds `dtype`."""
        for index, spec in self.specs.items():
            shape = pages * PAGE, spec.kv_heads
            self._pages[index] = (
                torch.zeros(*shape, spec.dim, dtype=dtype, device=self._device),
                torch.zeros(*shape, spec.value_dim, dtype=dtype, device=self._device),
            )

    def set_rows(self, rows: RowMap) -> None:
        """Say where the rows of the next forward belong."""
        super().set_rows(rows)
        tables, sequence, position = (torch.from_numpy(part).long() for part in rows.places)
        slots = tables[sequence, position // PAGE] * PAGE + position % PAGE
        self._slots = slots.to(self._device)
        counts = torch.bincount(sequence, minlength=len(tables))
        starts = torch.cumsum(counts, 0) - counts
        single = counts == 1
        self._runs = [
            self._run(torch.arange(first, first + count)[None], tables[[number]], position)
            for number, (first, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True))
            if count > 1
        ]
        if single.any():
            self._runs.append(self._run(starts[single][:, None], tables[single], position))

    def _run(self, rows: Tensor, tables: Tensor, position: Tensor) -> _Run:
        positions = position[rows]
        needed = int(positions.max()) // PAGE + 1
        return _Run(*(part.to(self._device) for part in (rows, tables[:, :needed], positions)))

    def attend(self, index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Store keys and values of the rows, and attend; see `PagedAttention.attend`."""
        keys, values = self._pages[index]
        keys[self._slots] = key[0].transpose(0, 1).to(keys.dtype)
        values[self._slots] = value[0].transpose(0, 1).to(values.dtype)
        spec = self.specs[index]
        out = query.new_empty(query.shape[2], spec.heads, spec.value_dim)
        rows = query[0].transpose(0, 1)
        for run in self._runs:
            slots = (run.tables[:, :, None] * PAGE + torch.arange(PAGE, device=self._device)).flatten(1)
            found = _attend(rows[run.rows].float(), keys[slots].float(), values[slots].float(), run, spec,
                            self._sinks_of(index))  # fmt: skip
            out[run.rows] = found.to(out.dtype)
        return out[None]

    def _sinks_of(self, index: int) -> Tensor:
        return torch.from_numpy(self._sinks[index]).to(self._device)


def _attend(query: Tensor, keys: Tensor, values: Tensor, run: _Run, spec: LayerSpec, sinks: Tensor) -> Tensor:
    """Queries [sequences, rows, heads, dim] over keys and values [sequences, slots, kv_heads, dim]."""
    group = spec.heads // spec.kv_heads
    keys, values = (part.repeat_interleave(group, dim=2) for part in (keys, values))
    scores = torch.einsum("srhd,skhd->shrk", query, keys) * spec.scale
    if spec.softcap:
        scores = spec.softcap * torch.tanh(scores / spec.softcap)
    slot = torch.arange(keys.shape[1], device=keys.device)
    position = run.positions[:, None, :, None]
    seen = slot <= position
    if spec.window:
        seen = seen & (slot > position - spec.window)
    scores = scores.masked_fill(~seen, float("-inf"))
    # What lies where nobody has stored yet may be anything, and 0 times that as well.
    values = values.masked_fill((slot > run.positions[:, -1:])[:, :, None, None], 0.0)
    sink = sinks[None, :, None, None].expand(*scores.shape[:3], 1)
    weights = torch.softmax(torch.cat([scores, sink], dim=-1), dim=-1)[..., :-1]
    return torch.einsum("shrk,skhd->srhd", weights, values)
