"""A model in two parts: the body, from tokens to hidden rows, and the head, from hidden rows to logits.

Only the rows that somebody asks about go through the head, and a block of them at a time; the head of a small
model with a large vocabulary is a good part of its work. Both parts are transformers' own code: where a
model caps or scales its logits, it does so here too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import ModelOutput

from transom.errors import ModelRefused


class _Held(nn.Module):
    """Stands where the body was, and returns the hidden rows that it is given to hold."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.hidden = torch.empty(0)
        self._kind = kind

    def forward(self, *_args: object, **_kwargs: object) -> object:
        if issubclass(self._kind, ModelOutput):
            return self._kind(last_hidden_state=self.hidden)
        return (self.hidden,)


class SplitModel:
    """Body and head of a causal language model, which is taken apart in place."""

    def __init__(self, model: PreTrainedModel) -> None:
        name, kind = _find_body(model)
        parent, _, leaf = name.rpartition(".")
        self.config = model.config.get_text_config()
        self._body = model.get_submodule(name)
        self._model = model
        self._device = model.device
        self._held = _Held(kind)
        setattr(model.get_submodule(parent), leaf, self._held)

    def hidden(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        """[rows] and [rows] to [rows, width], the input of the head, which stays where the model is."""
        ids, places = (part[None].to(self._device) for part in (token_ids, positions))
        with torch.inference_mode():
            output = self._body(input_ids=ids, position_ids=places, use_cache=False)
        return _last_hidden(output)[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, width] to [rows, vocabulary]."""
        self._held.hidden = hidden[None]
        with torch.inference_mode():
            logits: Tensor = self._model(input_ids=torch.zeros(1, hidden.shape[0], dtype=torch.long)).logits
        return logits[0]


def _last_hidden(output: Any) -> Tensor:  # noqa: ANN401
    hidden: Tensor = output[0]
    return hidden


def _find_body(model: PreTrainedModel) -> tuple[str, type]:
    """The outermost part whose output is what the output matrix is fed: its name, and its kind of output.

    Raises:
        ModelRefused: something that is not the head's stands between.
    """
    parts: dict[int, tuple[str, type]] = {}
    fed: list[Tensor] = []

    def leaving(name: str) -> Any:  # noqa: ANN401
        def hook(_module: nn.Module, _args: object, output: Any) -> None:  # noqa: ANN401
            first = output[0] if isinstance(output, tuple | ModelOutput) else None
            if isinstance(first, Tensor):
                parts[first.data_ptr()] = name, type(output)  # the outermost part ends last

        return hook

    hooks = [part.register_forward_hook(leaving(name)) for name, part in model.named_modules() if name]
    head: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    hooks.append(head.register_forward_pre_hook(lambda _module, args: fed.append(args[0])))
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    with torch.inference_mode():
        model(input_ids=ids, position_ids=torch.arange(2, device=model.device)[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    body = parts.get(fed[0].data_ptr()) if fed else None
    if body is None:
        raise ModelRefused(f"{type(model).__name__} does not feed its output matrix from one body")
    return body
