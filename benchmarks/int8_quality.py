"""What int8 would cost a model's answers: weights by output column, activations by token, sums exact.

    python benchmarks/int8_quality.py MODEL_ROOT

Reads text of this repository with the plain model in float32, and again with every linear layer but the head
in bfloat16 or in int8, both as an engine would compute them: rounded operands, products added without loss.
Prints the perplexity, the divergence from float32, and how often the likeliest token is another one.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXTS = Path(__file__).resolve().parent.parent / "docs" / "explanation"
"""English prose that ships with the project."""

WINDOW = 512
"""Tokens that are read together."""

Rounding = Callable[[Tensor], Tensor]
"""[rows, width] to the numbers that a format has for them."""


def main(arguments: Sequence[str]) -> int:
    """Print a line for each format."""
    parser = argparse.ArgumentParser(prog="benchmarks/int8_quality.py", description=__doc__.split("\n")[0])
    parser.add_argument("root", help="folder of a model root")
    parser.add_argument("--windows", type=int, default=8, help=f"windows of {WINDOW} tokens (default 8)")
    options = parser.parse_args(arguments)
    tokens = _tokens(options.root, options.windows)
    reference = _logprobs(_model(options.root), tokens)
    print(f"{'format':40} perplexity  divergence, nats  other favourite")
    for name, rounding in FORMATS.items():
        model = _model(options.root)
        _round_layers(model, *rounding)
        print(f"{name:40} {_line(_logprobs(model, tokens), reference, tokens)}", flush=True)
    return 0


def by_row(values: Tensor) -> Tensor:
    """The nearest of 255 numbers, spaced evenly up to the largest of each row."""
    scale = values.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    rounded: Tensor = (values / scale).round() * scale
    return rounded


def to_bfloat16(values: Tensor) -> Tensor:
    """The nearest numbers of bfloat16."""
    rounded: Tensor = values.bfloat16().float()
    return rounded


def as_they_are(values: Tensor) -> Tensor:
    """No rounding."""
    return values


FORMATS: dict[str, tuple[Rounding, Rounding]] = {
    "float32": (as_they_are, as_they_are),
    "bfloat16": (to_bfloat16, to_bfloat16),
    "int8 weights, float32 activations": (by_row, as_they_are),
    "int8 weights, int8 activations": (by_row, by_row),
}
"""How weights [out, in], and activations [tokens, in], are rounded."""


def _tokens(root: str, windows: int) -> Tensor:
    text = "\n".join(path.read_text() for path in sorted(TEXTS.glob("*.md")))
    ids: Tensor = AutoTokenizer.from_pretrained(root, local_files_only=True)(
        text, return_tensors="pt"
    ).input_ids[0]
    windows = min(windows, len(ids) // WINDOW)
    return ids[: windows * WINDOW].reshape(windows, WINDOW)


def _model(root: str) -> nn.Module:
    model: nn.Module = AutoModelForCausalLM.from_pretrained(root, dtype=torch.float32, local_files_only=True)
    return model.eval()


def _round_layers(model: nn.Module, weights: Rounding, activations: Rounding) -> None:
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear) and not name.endswith("lm_head"):
            part.weight.data = weights(part.weight.data)
            part.register_forward_pre_hook(lambda _part, args: (activations(args[0]), *args[1:]))


def _logprobs(model: nn.Module, tokens: Tensor) -> Tensor:
    """[windows, WINDOW - 1, vocabulary]."""
    with torch.inference_mode():
        return torch.stack([model(row[None]).logits[0, :-1].log_softmax(-1) for row in tokens])


def _line(own: Tensor, reference: Tensor, tokens: Tensor) -> str:
    perplexity = own.gather(-1, tokens[:, 1:, None]).mean().neg().exp()
    divergence = (reference.exp() * (reference - own)).sum(-1).mean()
    other = (own.argmax(-1) != reference.argmax(-1)).float().mean()
    return f"{perplexity:10.3f} {divergence:17.5f} {100 * other:14.1f} %"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
