"""Direct logit attribution by plain PyTorch: the norm's scale held fixed, all weights at hand, float64."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM

PARTS = {
    "llama": ("model.layers.{}.self_attn", "model.layers.{}.mlp", "model.norm"),
    "gpt2": ("transformer.h.{}.attn", "transformer.h.{}.mlp", "transformer.ln_f"),
    "gpt_neox": ("gpt_neox.layers.{}.attention", "gpt_neox.layers.{}.mlp", "gpt_neox.final_layer_norm"),
}


def plainly_attributed(root, family, ids, first, second, pos):
    """Terms (embedding, then attention and MLP of each layer), and the difference of logits itself."""
    model = AutoModelForCausalLM.from_pretrained(root, dtype=torch.float64)
    *kinds, last = PARTS[family]
    seen = {}

    def keep(name):
        def hook(_, args, output):
            seen[name] = (output[0] if isinstance(output, tuple) else output)[0, pos]
            seen[f"{name}.in"] = args[0][0, pos] if args else None

        return hook

    names = [kind.format(layer) for layer in range(model.config.num_hidden_layers) for kind in kinds]
    for name in [*names, last]:
        model.get_submodule(name).register_forward_hook(keep(name))
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, pos]
    norm, rows = model.get_submodule(last), model.get_output_embeddings().weight
    stream = seen[f"{last}.in"]
    terms = torch.stack([stream - sum(seen[name] for name in names), *(seen[name] for name in names)])
    if getattr(norm, "bias", None) is not None:
        stream, terms = stream - stream.mean(), terms - terms.mean(-1, keepdim=True)
    direction = (rows[first] - rows[second]) * norm.weight / stream.square().mean().sqrt()
    return (terms @ direction).detach().numpy(), float(logits[first] - logits[second])
