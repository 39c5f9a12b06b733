"""What an engine shows before it serves: the plain model's numbers, and the same bits in any company.

The plain model (transformers, eager attention, one prompt at a time) is run before the kernels are replaced.
Afterwards the same prompts run alone, in odd chunks, and all together with different chunk boundaries; every
run must agree with every other to the bit, and with the plain model up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from transom.engine.chunks import Chunk
from transom.engine.pages import pages_of
from transom.engine.runner import Runner, wanted_positions
from transom.engine.sequence import Sequence
from transom.errors import ModelRefused
from transom.schema.generation import SamplingParams, SequenceRequest

_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.5}
"""Root mean square, over the vocabulary, of the difference from the plain model's logprobs at a position, for
logits of ordinary size. Either may be the one that rounds more. The largest single difference would be no
measure: at an unlucky position the plain model itself is ten times as far from its float64 values as usual,
and which position that is changes with the processor."""

_LENGTHS = (3, 19, 45, 150)
"""Across page boundaries, and beyond a small sliding window."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A prompt and the plain model's logprobs [tokens, vocabulary] of it."""

    token_ids: tuple[int, ...]
    logprobs: Tensor
    scale: float
    """Largest logit, to which rounding is relative; at least 10."""


def reference(model: PreTrainedModel, longest: int) -> list[Reference]:
    """The plain model's answers to the probe prompts, which are cut to `longest` tokens."""
    config = model.config.get_text_config()
    generator = torch.Generator().manual_seed(0)
    found = []
    for length in _LENGTHS:
        ids = torch.randint(config.vocab_size, (1, min(length, longest)), generator=generator)
        with torch.inference_mode():
            logits = model(input_ids=ids.to(model.device), use_cache=False).logits[0].float().cpu()
        if not torch.isfinite(logits).all():
            raise ModelRefused("the model's own logits are not finite")
        scale = max(10.0, float(logits.abs().max()))
        found.append(Reference(tuple(ids[0].tolist()), torch.log_softmax(logits, -1), scale))
    return found


def prove(
    runner: Runner, references: list[Reference], pages: int, dtype: str, *, invariant: bool = True
) -> None:
    """Run the probe prompts alone, chunked and together, as far as a cache of `pages` pages holds them.

    Args:
        runner: has the model whose parts have been replaced.
        references: what the plain model said.
        pages: size of the cache.
        dtype: of the model.
        invariant: whether every run has to have the same bits; else each must be right.

    Raises:
        ModelRefused: two runs differ in a bit, or one differs from the plain model by more than rounding.
    """
    room = accumulate(pages_of(len(r.token_ids)) for r in references)
    usable = [r for r, needed in zip(references, room, strict=True) if needed < pages]
    alone = [_forward(runner, [item], [len(item.token_ids)])[0] for item in usable]
    for item, logits in zip(usable, alone, strict=True):
        _check_right(item, logits, dtype)
    for sizes in ([3, 2, 9, 75], [1, 16, 5, 150], [2, 7, 44, 33]):
        for item, mixed, single in zip(usable, _forward(runner, usable, sizes), alone, strict=False):
            _check_right(item, mixed, dtype)
            if invariant and not torch.equal(mixed, single):
                raise ModelRefused(
                    f"a prompt of {len(item.token_ids)} tokens gives other bits in a batch than alone; "
                    "some operator of this model is not batch-invariant on this machine"
                )


def _check_right(reference: Reference, logits: Tensor, dtype: str) -> None:
    away = torch.log_softmax(logits.float(), -1) - reference.logprobs
    worst = float(away.square().mean(-1).sqrt().max())
    allowed = _TOLERANCE[dtype] * reference.scale / 10
    if not worst <= allowed:
        raise ModelRefused(
            f"logprobs differ from the plain model's by {worst:.2g} (root mean square) "
            f"where rounding explains {allowed:.2g}"
        )


def _forward(runner: Runner, references: list[Reference], sizes: list[int]) -> list[Tensor]:
    """Logits of each prompt, all prompts side by side, prompt i in chunks of sizes[i] tokens."""
    sequences = [_sequence(index, item.token_ids) for index, item in enumerate(references)]
    next_page = 1
    for sequence in sequences:
        count = pages_of(len(sequence.tokens))
        sequence.pages = list(range(next_page, next_page + count))
        next_page += count
    parts: list[list[Tensor]] = [[] for _ in sequences]
    while chunks := _next_chunks(sequences, sizes):
        logits = runner.logits(runner.run(chunks)).cpu()
        for chunk, rows in zip(
            chunks, torch.split(logits, [len(wanted_positions(c)) for c in chunks]), strict=True
        ):
            parts[sequences.index(chunk.sequence)].append(rows)
            chunk.sequence.computed = chunk.end
    return [torch.cat(part) for part in parts]


def _next_chunks(sequences: list[Sequence], sizes: list[int]) -> list[Chunk]:
    pending = [(s, size) for s, size in zip(sequences, sizes, strict=False) if s.computed < s.target]
    return [Chunk(s, s.computed, min(size, s.target - s.computed)) for s, size in pending]


def _sequence(index: int, token_ids: tuple[int, ...]) -> Sequence:
    sampling = SamplingParams(seed=0, max_tokens=1, prompt_logprobs=0)
    return Sequence(SequenceRequest(sequence_id=str(index), prompt_token_ids=token_ids, sampling=sampling))
