"""The reference: transformers' own modules with eager attention, hooks on them, and nothing of Transom's.

A forward is over whole sequences, without a cache. Several of one length may be computed side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from benchmarks.equality.exact import ATTENTION, make_exact

Edit: TypeAlias = Callable[[Tensor], Tensor]
"""From what a module takes or gives, [sequences, positions, width], to the same."""

Edits: TypeAlias = Sequence[tuple[str, Edit]]
"""By site, such as `resid_post.5`; those of one site are made in order."""

EVERY = slice(None)
LAST = slice(-1, None)

_ATTENTION, _MLP = "self_attn", "mlp"

_INPUTS = {
    "resid_pre": "",
    "resid_mid": ".post_attention_layernorm",
    "z": f".{_ATTENTION}.o_proj",
    "mlp_act": f".{_MLP}.down_proj",
}
"""Points that a module of the layer takes."""

_OUTPUTS = {
    "attn_in": ".input_layernorm",
    "q": f".{_ATTENTION}.q_proj",
    "k": f".{_ATTENTION}.k_proj",
    "value": f".{_ATTENTION}.v_proj",
    "attn_probs": f".{_ATTENTION}",
    "attn_out": f".{_ATTENTION}.o_proj",
    "mlp_in": ".post_attention_layernorm",
    "mlp_pre": f".{_MLP}.gate_proj",
    "mlp_pre_linear": f".{_MLP}.up_proj",
    "mlp_out": f".{_MLP}",
    "resid_post": "",
}
"""Points that a module of the layer gives."""

_GLOBAL = {"embeddings": "model.embed_tokens", "final_norm": "model.norm"}


def change(how: Edit, rows: slice = EVERY, columns: slice | list[int] = EVERY) -> Edit:
    """Change some positions and some columns, and leave the others."""

    def edit(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        changed[:, rows, columns] = how(tensor[:, rows, columns])
        return changed

    return edit


def become(value: Tensor, rows: slice = EVERY, columns: slice | list[int] = EVERY) -> Edit:
    """Put a value, or what fits when broadcast, in the place of some positions and columns."""
    return change(value.expand_as, rows, columns)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a forward had."""

    sites: dict[str, Tensor]
    """[sequences, positions, width] each; of `attn_probs`, [sequences, heads, positions, positions]."""
    logits: Tensor
    """[sequences, positions or 1, vocabulary]"""

    def __getitem__(self, site: str) -> Tensor:
        return self.sites[site]

    def layers(self, point: str, rows: slice = EVERY) -> Tensor:
        """A point of all layers that were kept, of the only sequence: [layers, positions, width]."""
        found = [tensor[0, rows] for site, tensor in self.sites.items() if site.startswith(f"{point}.")]
        return torch.stack(found)


class Plain:
    """A Llama-like model.

    Args:
        root: of the model.
        exact: whether to compute in float64 throughout.
    """

    def __init__(self, root: Path, *, exact: bool = False) -> None:
        self.dtype = torch.float64 if exact else torch.float32
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            root,
            dtype=self.dtype,
            attn_implementation=ATTENTION if exact else "eager",
            local_files_only=True,
        )
        if exact:
            make_exact(self.model)
        self.model.requires_grad_(requires_grad=False)
        self.model.train(mode=False)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(root, local_files_only=True)
        config = self.model.config
        self.layers: int = config.num_hidden_layers
        self.heads: int = config.num_attention_heads
        self.groups: int = config.num_key_value_heads
        self.head_width: int = config.head_dim
        self.width: int = config.hidden_size

    def ids(self, text: str) -> list[int]:
        """The tokens of a text."""
        found: list[int] = self.tokenizer(text)["input_ids"]
        return found

    def every(self, point: str) -> list[str]:
        """The sites of a point at all layers."""
        return [f"{point}.{layer}" for layer in range(self.layers)]

    def head(self, number: int) -> slice:
        """The columns of a head."""
        return slice(number * self.head_width, (number + 1) * self.head_width)

    def run(
        self,
        ids: Sequence[int] | Tensor,
        keep: Sequence[str] = (),
        edits: Edits = (),
        *,
        only_last: bool = False,
    ) -> Seen:
        """A forward, with a graph where it is wanted.

        Args:
            ids: [positions], or [sequences, positions].
            keep: sites to keep, as they are after edits.
            edits: to make.
            only_last: whether logits are wanted of the last position alone.
        """
        tokens = torch.as_tensor(ids)
        seen: dict[str, Tensor] = {}
        with self._hooked(seen, keep, edits):
            hidden = self.model.model(tokens.reshape(-1, tokens.shape[-1]), use_cache=False).last_hidden_state
        logits = self.model.lm_head(hidden[:, -1:] if only_last else hidden)
        return Seen({site: seen[site] for site in keep}, logits)

    def lens(self, rows: Tensor) -> Tensor:
        """Logprobs over the vocabulary, of rows of the residual stream."""
        return torch.log_softmax(self.model.lm_head(self.model.model.norm(rows)), -1)

    def greedy(
        self, ids: Sequence[int], count: int, keep: Sequence[str], edits: Callable[[int], Edits]
    ) -> tuple[list[int], Seen]:
        """The likeliest tokens, one after the other, and the forward over all that was computed.

        Args:
            ids: of the prompt.
            count: how many tokens to generate.
            keep: sites to keep.
            edits: to make in a forward over so many positions.
        """
        tokens = list(ids)
        for _ in range(count):
            seen = self.run(tokens, keep, edits(len(tokens)))
            tokens.append(int(seen.logits[0, -1].argmax()))
        return tokens[len(ids) :], seen

    def rotated(self, seen: Seen, layer: int) -> tuple[Tensor, Tensor]:
        """Queries and keys after rotation, [heads, positions, width], from `q` and `k`."""
        q, k = (self.split(seen[f"{name}.{layer}"][0]) for name in ("q", "k"))
        positions = torch.arange(q.shape[0])[None]
        cosine, sine = self.model.model.rotary_emb(q, positions)
        turned = apply_rotary_pos_emb(q.transpose(0, 1)[None], k.transpose(0, 1)[None], cosine, sine)
        return turned[0][0], turned[1][0]

    def split(self, rows: Tensor) -> Tensor:
        """[..., width] as [..., heads, width of a head]."""
        return rows.reshape(*rows.shape[:-1], -1, self.head_width)

    @contextmanager
    def _hooked(self, seen: dict[str, Tensor], keep: Sequence[str], edits: Edits) -> Iterator[None]:
        by_site: dict[str, list[Edit]] = {site: [] for site in keep}
        for site, edit in edits:
            by_site.setdefault(site, []).append(edit)
        handles = [self._hook(site, seen, found) for site, found in by_site.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(
        self, site: str, seen: dict[str, Tensor], edits: Sequence[Edit]
    ) -> torch.utils.hooks.RemovableHandle:
        module, is_input = self._place(site)
        index = int(site.startswith("attn_probs."))

        def touched(tensor: Tensor) -> Tensor:
            for edit in edits:
                tensor = edit(tensor)
            # A tensor of its own, which gradients can be taken to where others use the same one.
            seen[site] = tensor * 1.0
            return seen[site]

        def entering(_module: nn.Module, args: tuple[Any, ...]) -> Any:
            return touched(args[0]), *args[1:]

        def leaving(_module: nn.Module, _args: object, output: Any) -> Any:
            if not isinstance(output, tuple):
                return touched(output)
            return *output[:index], touched(output[index]), *output[index + 1 :]

        if is_input:
            return module.register_forward_pre_hook(entering)
        return module.register_forward_hook(leaving)

    def _place(self, site: str) -> tuple[nn.Module, bool]:
        """The module, and whether the site is what it takes."""
        point, _, layer = site.partition(".")
        if point in _GLOBAL:
            return self.model.get_submodule(_GLOBAL[point]), False
        is_input = point in _INPUTS
        name = _INPUTS[point] if is_input else _OUTPUTS[point]
        return self.model.get_submodule(f"model.layers.{layer}{name}"), is_input


def gradients(metric: Tensor, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of one number with respect to each."""
    found = torch.autograd.grad(metric, list(tensors.values()), retain_graph=True)
    return dict(zip(tensors, found, strict=True))
