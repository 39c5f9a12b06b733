"""Measures a loaded model: its sizes, and what the graph of a forward holds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from transom.engine.attention import PagedAttention
from transom.engine.places import Places
from transom.internals.sharing import cached_numbers
from transom.schema.dimensions import Dimensions, Graph

_FLOAT32 = 4
"""Bytes of a number: gradients are computed in float32, whatever is served."""

_LENGTH = 4
"""Tokens of the shortest forward that tells how a graph grows; others have two and four times as many."""


@dataclass(frozen=True, slots=True)
class Plain:
    """What is known of a model whose modules have not been replaced."""

    width: int
    vocabulary: int
    weights: int
    parameters: int
    graph: Graph | None


def measure(model: PreTrainedModel) -> Plain:
    """Measure a plain model; takes three forwards of a few tokens."""
    config = model.config.get_text_config()
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    inner = [part for part in model.modules() if part is not head and not isinstance(part, nn.Embedding)]
    matrices = [own for part in inner for own in part.parameters(recurse=False) if own.dim() > 1]
    return Plain(
        width=config.hidden_size,
        vocabulary=config.vocab_size,
        weights=sum(matrix.numel() for matrix in matrices),
        parameters=sum(each.numel() for each in model.parameters()),
        graph=measure_graph(model),
    )


def measure_graph(model: PreTrainedModel) -> Graph | None:
    """What a plain model keeps for a backward; None where it has none.

    What is kept depends on the architecture's own code. So it is counted and not guessed: the tensors that
    autograd saves in three short forwards, each once, as if they were float32.
    """
    embedding: nn.Module = model.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda _module, _args, output: output.detach().requires_grad_())
    try:
        one, two, four = (_held(model, times * _LENGTH) for times in (1, 2, 4))
    except (RuntimeError, IndexError):
        return None
    finally:
        hook.remove()
    # The parabola through three points, each number rounded up.
    pair = -(-(four - 3 * two + 2 * one) // (6 * _LENGTH * _LENGTH))
    row = -(-(two - one) // _LENGTH) - 3 * _LENGTH * pair
    return Graph(fixed=max(0, one - _LENGTH * row - _LENGTH * _LENGTH * pair), row=row, pair=pair)


def _held(model: PreTrainedModel, tokens: int) -> int:
    """Bytes of what autograd saves in a forward of so many tokens, the model's own parameters left out."""
    own = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            saved[_storage(tensor)] = tensor  # held, so that nothing else comes to lie there
        return tensor

    ids = torch.zeros(1, tokens, dtype=torch.long, device=model.device)
    last = torch.tensor([tokens - 1], device=model.device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits: Tensor = model(input_ids=ids, use_cache=False, logits_to_keep=last).logits
        torch.log_softmax(logits, -1).sum()
    return sum(_bytes(tensor) for tensor in saved.values())


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes(tensor: Tensor) -> int:
    held = tensor.untyped_storage().nbytes()
    return held // tensor.itemsize * _FLOAT32 if tensor.is_floating_point() else held


def dimensions_of(
    plain: Plain, attention: PagedAttention, places: Places, *, gradient_bytes: int
) -> Dimensions:
    """The dimensions of a model as it is served.

    Args:
        plain: what it was before.
        attention: has seen all of its layers.
        places: its points.
        gradient_bytes: most memory that a gradient may take.
    """
    specs = attention.specs.values()
    return Dimensions(
        layers=len(specs),
        width=plain.width,
        vocabulary=plain.vocabulary,
        weights=plain.weights,
        attention=sum(spec.heads * (spec.dim + spec.value_dim) for spec in specs),
        cached=cached_numbers(places.shapes),
        enters=places.is_whole,
        parameters=plain.parameters,
        graph=plain.graph,
        gradient_bytes=gradient_bytes,
    )
