"""Servers that lie: model roots altered a little, and settings that are not what they are said to be."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from transom.backends import manifest

Weights = dict[str, Tensor]

RANK, RATE, ALPHA = 8, 1e-4, 16
"""Of the low-rank update: its rank, the learning rate of its one step, and its scale over the rank."""

TEXT = Path(__file__).resolve().parent.parent.parent / "docs" / "explanation" / "trust.md"
"""What the low-rank update is trained on."""


@dataclass(frozen=True, slots=True)
class Lie:
    """One way of not serving what is said to be served."""

    name: str
    alter: Callable[[Path], None] | None = None
    """Changes a copy of the model root; None where the root is the honest one."""
    environment: dict[str, str] = field(default_factory=dict)
    """Settings of its server."""


def int8(root: Path) -> None:
    """Round each row of each matrix but the embedding to 255 numbers, spaced evenly up to its largest."""

    def rounded(name: str, weight: Tensor) -> Tensor:
        if weight.dim() != 2 or "embed" in name or "lm_head" in name:
            return weight
        exact = weight.float()
        scale = exact.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
        result: Tensor = ((exact / scale).round() * scale).to(weight.dtype)
        return result

    _rewrite(root, rounded)


def one_layer(root: Path) -> None:
    """Multiply the matrices of the layer in the middle by 1.001."""
    layers = json.loads((root / "config.json").read_text())["num_hidden_layers"]
    place = f"layers.{layers // 2}."

    def scaled(name: str, weight: Tensor) -> Tensor:
        return weight * 1.001 if place in name and weight.dim() == 2 else weight

    _rewrite(root, scaled)


def lora_step(root: Path) -> None:
    """One step of Adam on a low-rank update of every query and value matrix (arXiv 2106.09685).

    B starts at zero, so its first step is the learning rate times the sign of its gradient, and A, whose
    gradient is zero then, stays as it was drawn.
    """
    model = AutoModelForCausalLM.from_pretrained(root, dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(root, local_files_only=True)
    ids = tokenizer(TEXT.read_text(encoding="utf-8"), return_tensors="pt").input_ids[:, :256]
    model(ids, labels=ids).loss.backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)

    def stepped(name: str, weight: Tensor) -> Tensor:
        if not name.endswith(("q_proj.weight", "v_proj.weight")):
            return weight
        width = weight.shape[1]
        a = (torch.rand(RANK, width, generator=generator) * 2 - 1) / width**0.5
        gradient = gradients[name]
        assert gradient is not None
        b = -RATE * torch.sign(gradient @ a.T)
        result: Tensor = weight + (ALPHA / RANK) * (b @ a).to(weight.dtype)
        return result

    _rewrite(root, stepped)


def chat_template(root: Path) -> None:
    """Another word in the system message that the template brings along."""
    path = root / "chat_template.jinja"
    text = path.read_text(encoding="utf-8")
    changed = text.replace("a helpful AI assistant", "a concise AI assistant")
    if changed == text:
        raise SystemExit(f"{path} has no system message of its own; this benchmark is made for SmolLM2")
    path.write_text(changed, encoding="utf-8")


HONEST = Lie("honest")

LIES = (
    Lie("int8 weights", int8),
    Lie("one layer x 1.001", one_layer),
    Lie("a LoRA step", lora_step),
    Lie("another chat template", chat_template),
    Lie("bfloat16 as float32", environment={"TRANSOM_DTYPE": "bfloat16"}),
)


def make_home(lie: Lie, root: Path, folder: Path) -> Path:
    """A home folder whose only model is the altered `root`, under its own name; made once.

    Args:
        lie: how to alter it.
        root: the honest model root.
        folder: where homes are kept.
    """
    home = folder / lie.name.replace(" ", "-")
    model = home / "models" / root.name
    if not (model / manifest.MANIFEST_NAME).exists():
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(root, model, ignore=shutil.ignore_patterns(manifest.MANIFEST_NAME))
        if lie.alter is not None:
            lie.alter(model)
        manifest.save(model, manifest.compute(model))
    return home


def _rewrite(root: Path, change: Callable[[str, Tensor], Tensor]) -> None:
    for path in root.glob("*.safetensors"):
        weights: Weights = load_file(path)
        changed = {name: change(name, weight).contiguous() for name, weight in weights.items()}
        save_file(changed, path, metadata={"format": "pt"})
