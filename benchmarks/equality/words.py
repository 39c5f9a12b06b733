"""The twelve experiments: how they are called, and what of each is compared."""

from __future__ import annotations

from typing import NamedTuple

SCENARIO = "experiment"
"""Of the rows that are kept."""


class Words(NamedTuple):
    """What a page says of an experiment."""

    name: str
    compared: str


EXPERIMENTS = {
    "sampling": Words(
        "Sampling and whole distributions",
        "two seeded choices at temperature 0.9, two more through `top_k` and `top_p`, and greedy tokens: "
        "the tokens (by the Gumbel-max draw from the plain model's logits, and the documented noise), their "
        "logprobs, and the distributions over the vocabulary at all of them and in the prompt",
    ),
    "dataset": Words(
        "Activation datasets",
        "15 prompts of 4 to 60 tokens: the residual stream after all layers at all positions; outputs of "
        "heads, queries, keys, values and neurons of some layers; means and norms",
    ),
    "lens": Words(
        "Logit lens",
        "the five likeliest tokens and their logprobs after all layers at all positions, four chosen tokens "
        "in the middle of all layers, and the whole distribution after each layer",
    ),
    "attention": Words(
        "Attention patterns",
        "the patterns of all 270 heads over a repeated random sequence, scores before the softmax, and "
        "patterns of positions that are generated",
    ),
    "patching": Words(
        "Activation-patching sweeps",
        "logits of both answers, with the residual stream patched at every layer and position, and with "
        "each head of six layers patched",
    ),
    "ablation": Words(
        "Zero, mean and resample ablation",
        "of heads, of attention and MLP layers, and of neurons, ten runs in all: logits over the "
        "vocabulary, and the residual stream after the last layer",
    ),
    "steering": Words(
        "Steering while generating",
        "a difference of two activations added while 8 tokens are generated, at all positions, and from the "
        "third token on: the tokens, their logprobs, and the residual stream meanwhile",
    ),
    "directions": Words(
        "Direction removal and clamping",
        "a direction removed from all that writes into the residual stream, clamped, and turned around; a "
        "neuron pinned: logits over the vocabulary, and the residual stream",
    ),
    "gradients": Words(
        "Attribution patching, saliency, integrated gradients",
        "gradient times difference at all MLPs, heads and layers; gradients of a logprob to the embeddings, "
        "times the input too, and of a divergence to all attention layers; 8 steps of integrated gradients "
        "from 0 and from another prompt",
    ),
    "direct": Words(
        "Direct logit attribution",
        "what the embedding, all attention and MLP layers, and the heads of two layers add to a difference "
        "of logits, with the last norm's scale held fixed; and the sum of it all",
    ),
    "paths": Words(
        "Path patching",
        "the direct path of all heads of five layers to the logits, with all other heads frozen; and the "
        "paths from three heads by way of the queries of another",
    ),
    "readout": Words(
        "Probe and SAE read-out",
        "eight probes at all layers and positions; 64 features of a sparse autoencoder at all positions, "
        "and the eight strongest at the last; weights are random and fixed",
    ),
}
"""By key."""
