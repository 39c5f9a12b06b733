"""Ways to reconstruct weight matrices through the API: each gathers pairs of what a matrix maps."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import load

MODEL = "tiny"
WIDTH, NEURONS, VOCABULARY = 64, 128, 384
PERCENT = 25
LAYER = 1


@dataclass
class Thief:
    """Sends plans until one is refused."""

    holder: object
    refusal: dict | None = None

    async def take(self, runs, *returns, **more):
        """The values, by name without the run's; None once the policy says no."""
        body = {"model": MODEL, "runs": runs, "return": list(returns)} | more
        headers = {"authorization": f"Bearer {self.holder.key}"}
        reply = await self.holder.door.client.post("/v1/traces", json=body, headers=headers)
        if reply.status_code != 200:
            assert reply.status_code == 403, reply.text
            self.refusal = reply.json()["error"]
            return None
        return load(reply.content)

    async def score(self, body):
        """Distributions of a prompt [tokens, vocabulary]; None once the policy says no."""
        headers = {"authorization": f"Bearer {self.holder.key}"}
        reply = await self.holder.door.client.post("/v1/completions", json=body, headers=headers)
        if reply.status_code != 200:
            assert reply.status_code == 403, reply.text
            self.refusal = reply.json()["error"]
            return None
        vectors = reply.json()["choices"][0]["prompt_distributions"]
        return np.stack([np.frombuffer(base64.b64decode(each["b64"]), "<f4") for each in vectors])


def prompt(number, length=4):
    tokens = np.random.default_rng(number).integers(5, VOCABULARY, length)
    return {"token_ids": tokens.tolist()}


def unit(index, width, size=1.0):
    row = np.zeros(width)
    row[index] = size
    return {"inline": row.tolist()}


async def both_sides(thief):
    """o_proj: what goes in and what comes out, read together."""
    given, told = [], []
    for number in range(WIDTH // 4 + 2):
        read = {"z": {"at": f"z.{LAYER}"}, "out": {"at": f"attn_out.{LAYER}"}}
        found = await thief.take({"a": {"input": prompt(number), "read": read}}, "a.z", "a.out")
        if found is None:
            break
        given.append(found["a.z"].reshape(-1, WIDTH))
        told.append(found["a.out"])
    return given, told


async def one_after_the_other(thief):
    """up_proj: all of one side first, then the other: the same prompt gives the same bits."""
    sides = []
    for point in ("mlp_in", "mlp_pre_linear"):
        side = []
        for number in range(WIDTH // 4 + 2):
            read = {"x": {"at": f"{point}.{LAYER}"}}
            found = await thief.take({"a": {"input": prompt(number), "read": read}}, "a.x")
            if found is None:
                break
            side.append(found["a.x"])
        sides.append(side)
    return sides[0][: len(sides[1])], sides[1]


async def chosen_inputs(thief):
    """o_proj: unit vectors are written, so that the output is the matrix, row by row."""
    given, told = [], []
    for index in range(WIDTH):
        write = [{"at": f"z.{LAYER}", "pos": "last", "op": "set", "value": unit(index, WIDTH)}]
        read = {"out": {"at": f"attn_out.{LAYER}", "pos": "last"}}
        found = await thief.take({"a": {"input": prompt(0), "write": write, "read": read}}, "a.out")
        if found is None:
            break
        given.append(np.eye(WIDTH)[index][None])
        told.append(found["a.out"])
    return given, told


async def chosen_inputs_through_the_stream(thief):
    """down_proj: neurons are written, and only the stream behind the layer is read."""
    given, told = [], []
    base = None
    for index in range(-1, NEURONS):
        value = unit(index, NEURONS) if index >= 0 else 0.0
        write = [{"at": f"mlp_act.{LAYER}", "pos": "last", "op": "set", "value": value}]
        read = {"out": {"at": f"resid_post.{LAYER}", "pos": "last"}}
        found = await thief.take({"a": {"input": prompt(0), "write": write, "read": read}}, "a.out")
        if found is None:
            break
        if base is None:
            base = found["a.out"]
            continue
        given.append(np.eye(NEURONS)[index][None])
        told.append(found["a.out"] - base)
    return given, told


async def smuggled(thief):
    """o_proj: what comes out is carried to another run's stream and read there, under another name."""
    given, told = [], []
    for number in range(WIDTH // 4 + 2):
        carried = {"at": "resid_post.2", "op": "set", "value": "a.out"}
        runs = {
            "a": {
                "input": prompt(number),
                "read": {"z": {"at": f"z.{LAYER}"}, "out": {"at": f"attn_out.{LAYER}"}},
            },
            "b": {"input": prompt(number), "write": [carried], "read": {"x": {"at": "resid_post.2"}}},
        }
        found = await thief.take(runs, "a.z", "b.x")
        if found is None:
            break
        given.append(found["a.z"].reshape(-1, WIDTH))
        told.append(found["b.x"])
    return given, told


async def derived(thief):
    """o_proj: what is read is only returned as a multiple, by a derived value."""
    given, told = [], []
    for number in range(WIDTH // 4 + 2):
        read = {"z": {"at": f"z.{LAYER}"}, "out": {"at": f"attn_out.{LAYER}"}}
        derive = {"z": {"scale": ["a.z", 2.0]}, "out": {"scale": ["a.out", 2.0]}}
        runs = {"a": {"input": prompt(number), "read": read}}
        found = await thief.take(runs, "derive.z", "derive.out", derive=derive)
        if found is None:
            break
        given.append(found["derive.z"].reshape(-1, WIDTH))
        told.append(found["derive.out"])
    return given, told


async def by_gradients(thief):
    """down_proj: the gradient of one number that comes out is a row of the matrix."""
    given, told = [], []
    for index in range(WIDTH):
        site = {"at": f"mlp_out.{LAYER}", "pos": "last"}
        grad = {
            "of": {"dot": [site, unit(index, WIDTH)]},
            "wrt": {"g": {"at": f"mlp_act.{LAYER}", "pos": "last"}},
        }
        found = await thief.take({"a": {"input": prompt(0), "grad": grad}}, "a.g")
        if found is None:
            break
        given.append(np.eye(WIDTH)[index][None])
        told.append(found["a.g"])
    return given, told


async def single_tokens(thief):
    """v_proj and o_proj: of a prompt of one token, attention gives the product of both."""
    given, told = [], []
    for token in range(5, 5 + WIDTH + 4):
        read = {"x": {"at": f"attn_in.{LAYER}"}, "out": {"at": f"attn_out.{LAYER}"}}
        run = {"input": {"token_ids": [token]}, "read": read}
        found = await thief.take({"a": run}, "a.x", "a.out")
        if found is None:
            break
        given.append(found["a.x"])
        told.append(found["a.out"])
    return given, told


async def embedded(thief):
    """The embeddings: a row of the matrix for each token that is read."""
    given, told = [], []
    for start in range(0, VOCABULARY, 48):
        tokens = list(range(start, start + 48))
        read = {"x": {"at": "resid_pre.0"}}
        run = {"input": {"token_ids": tokens}, "read": read}
        found = await thief.take({"a": run}, "a.x")
        if found is None:
            break
        given.append(np.eye(VOCABULARY)[tokens])
        told.append(found["a.x"])
    return given, told


async def unembedded(thief):
    """The output matrix, behind the norm: the gradient of a difference of logits, at the stream's end."""
    given, told = [], []
    for start in range(1, VOCABULARY, 16):
        tokens = range(start, min(start + 16, VOCABULARY))
        grads = {
            f"r{token}": {
                "input": prompt(0),
                "grad": {
                    "of": {"logit_diff": [token, 0]},
                    "wrt": {"g": {"at": "resid_post.2", "pos": "last"}},
                },
            }
            for token in tokens
        }
        found = await thief.take(grads, *(f"{name}.g" for name in grads))
        if found is None:
            break
        given.append(np.eye(VOCABULARY)[tokens] - np.eye(VOCABULARY)[:1])
        told.append(np.concatenate([found[f"{name}.g"] for name in grads]))
    return given, told


async def norm_of(thief, weights):
    """What the last norm makes of a small change in the stream, after the prompt of `unembedded`."""
    found = await thief.take(
        {"a": {"input": prompt(0), "read": {"x": {"at": "resid_post.2", "pos": "last"}}}}, "a.x"
    )
    row, weight = found["a.x"][0].astype(np.float64), weights["model.norm.weight"].astype(np.float64)
    size = np.sqrt(np.mean(row**2) + 1e-6)
    return np.diag(weight) / size - np.outer(weight * row, row) / (WIDTH * size**3)


def _layer(weights, name):
    return weights[f"model.layers.{LAYER}.{name}.weight"].T


ATTACKS = {
    both_sides: lambda weights: _layer(weights, "self_attn.o_proj"),
    one_after_the_other: lambda weights: _layer(weights, "mlp.up_proj"),
    chosen_inputs: lambda weights: _layer(weights, "self_attn.o_proj"),
    chosen_inputs_through_the_stream: lambda weights: _layer(weights, "mlp.down_proj"),
    smuggled: lambda weights: _layer(weights, "self_attn.o_proj"),
    derived: lambda weights: _layer(weights, "self_attn.o_proj"),
    by_gradients: lambda weights: weights[f"model.layers.{LAYER}.mlp.down_proj.weight"],
    single_tokens: lambda weights: (
        _layer(weights, "self_attn.v_proj").reshape(WIDTH, 2, 1, 16).repeat(2, 2).reshape(WIDTH, WIDTH)
        @ _layer(weights, "self_attn.o_proj")
    ),
    embedded: lambda weights: weights["model.embed_tokens.weight"],
    unembedded: None,
}
"""Each attack, and the matrix that it is after, as what is given times it."""


def solved(given, told):
    """The matrix that explains all pairs, and that is 0 where they say nothing."""
    left, right = np.concatenate(given), np.concatenate(told)
    return np.linalg.lstsq(left.astype(np.float64), right.astype(np.float64), rcond=1e-5)[0], left


async def columns_by_scores(thief, weights, at_once=16):
    """Columns of the last down_proj, from the scores of a prompt that is written to; row 0 stays unknown.

    Each position is given one neuron and nothing else of the stream but a number that gives the scale away.
    Whoever knows the output matrix works back from what the model predicts there.
    """
    output = weights.get("lm_head.weight", weights["model.embed_tokens.weight"]).astype(np.float64)
    known = np.hstack([output * weights["model.norm.weight"], np.ones((VOCABULARY, 1))])
    found = []
    for first in range(0, NEURONS, at_once):
        place = {"pos": {"from": 0, "to": at_once}}
        neurons = {"inline": (5.0 * np.eye(NEURONS)[first : first + at_once]).tolist()}
        write = [
            {"at": "mlp_act.2", "op": "set", "value": neurons, **place},
            {"at": "resid_mid.2", "op": "zero", **place},
            {"at": "resid_post.2", "op": "set", "value": 1.0, "unit": [0], **place},
        ]
        body = {"model": MODEL, "prompt": [7] * (at_once + 1), "max_tokens": 0, "transom": {"write": write}}
        told = await thief.score(body | {"prompt_distributions": list(range(1, at_once + 1))})
        if told is None:
            break
        normed = np.linalg.lstsq(known, told.T.astype(np.float64), rcond=None)[0][:WIDTH].T
        found.append(normed / normed[:, :1] / 5.0)
    return np.concatenate(found) if found else np.zeros((0, WIDTH))
