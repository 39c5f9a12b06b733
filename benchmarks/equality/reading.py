"""Experiments that read: activation datasets, the logit lens, attention patterns, probes and features."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.equality.experiment import Experiment, Found
from benchmarks.equality.plain import LAST, Plain

_PATH = "/v1/traces"
TOWER = "The Eiffel Tower is in the city of"
COLOSSEUM = "The Colosseum is in the city of"


def plan(runs: dict[str, Any], *returned: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """A request of a plan that returns these values."""
    return _PATH, {"runs": runs, "return": list(returned)} | more


def returning(runs: dict[str, Any], **more: Any) -> tuple[str, dict[str, Any]]:
    """A request of a plan that returns all that its runs read."""
    names = [f"{name}.{read}" for name, run in runs.items() for read in run.get("read", {})]
    return plan(runs, *names, **more)


def scrambled(number: int, length: int) -> list[int]:
    """Token ids without a sense, others for each number and length."""
    return [(7919 * number + 104_729 * place + 31 * length) % 40_000 + 5 for place in range(length)]


def inline(array: NDArray[np.float32]) -> dict[str, Any]:
    """A tensor that stands in a plan."""
    text = base64.b64encode(array.astype("<f4").tobytes()).decode()
    return {"inline": {"dtype": "float32", "shape": list(array.shape), "b64": text}}


_PASSAGE = """
A transom is the window above a closed door. The door stays shut, the light comes through, and what arrives
over the transom is what outsiders send in unasked. In the houses of the last century it could be opened
with a long rod, so that the air of a warm evening moved from room to room while nobody could look in. Water
boils at 100 degrees, and in 1876 there were 366 days; the quick brown fox jumps over the lazy dog, again
and again.
"""
_WORDS = _PASSAGE.split()
_PROMPTS = [" ".join(_WORDS[3 * number : 6 * number + 3]) for number in range(15)]


def dataset() -> Experiment:
    """Prompts of many lengths, and what is wanted of each."""
    read = {
        "stream": {"at": "resid_post.*"},
        "z": {"at": "z.12", "head": [1, 4]},
        "q": {"at": "q.20", "pos": "last"},
        "k": {"at": "k.20", "pos": "last"},
        "v": {"at": "value.3", "pos": [0, -1]},
        "neurons": {"at": "mlp_act.7", "pos": "last"},
        "mean": {"at": "mlp_out.15", "reduce": "mean"},
        "norm": {"at": "resid_mid.*", "reduce": "norm"},
    }
    runs = {f"p{i}": {"input": text, "read": read} for i, text in enumerate(_PROMPTS)}
    return Experiment("dataset", [returning(runs)], _dataset)


def _dataset(plain: Plain) -> Found:
    sites = [*plain.every("resid_post"), *plain.every("resid_mid")]
    sites += ["z.12", "q.20", "k.20", "value.3", "mlp_act.7", "mlp_out.15"]
    found: Found = {}
    for i, text in enumerate(_PROMPTS):
        seen = plain.run(plain.ids(text), sites, only_last=True)
        values = {
            "stream": seen.layers("resid_post"),
            "z": plain.split(seen["z.12"][0])[:, [1, 4]],
            "q": plain.split(seen["q.20"][0, LAST]),
            "k": plain.split(seen["k.20"][0, LAST]),
            "v": plain.split(seen["value.3"][0, [0, -1]]),
            "neurons": seen["mlp_act.7"][0, LAST],
            "mean": seen["mlp_out.15"][0].mean(0),
            "norm": seen.layers("resid_mid").norm(dim=-1),
        }
        found |= {f"0.p{i}.{name}": value.numpy() for name, value in values.items()}
    return found


_TARGETS = [7042, 260, 0, 49151]


def lens() -> Experiment:
    """Each layer's prediction, in each form."""

    def through(at: str, pos: Any, **kept: Any) -> dict[str, Any]:
        return {"at": at, "pos": pos, "reduce": {"unembed": kept}}

    read = {
        "best": through("resid_post.*", "all", topk=5),
        "chosen": through("resid_mid.*", "all", targets=_TARGETS),
        "whole": through("resid_post.*", "last", vocabulary=True),
    }
    runs = {"a": {"input": TOWER, "read": read}}
    return Experiment("lens", [returning(runs)], _lens, absolute=("logprobs",))


def _lens(plain: Plain) -> Found:
    seen = plain.run(plain.ids(TOWER), [*plain.every("resid_post"), *plain.every("resid_mid")])
    after = plain.lens(seen.layers("resid_post"))
    best = after.topk(5)
    return {
        "0.a.best.ids": best.indices.numpy(),
        "0.a.best.logprobs": best.values.numpy(),
        "0.a.chosen": plain.lens(seen.layers("resid_mid"))[..., _TARGETS].numpy(),
        "0.a.whole": after[:, LAST].numpy(),
    }


_REPEATED = [1, *scrambled(5, 12), *scrambled(5, 12)]
_WRITTEN = 4


def attention() -> Experiment:
    """Where heads look; over a sequence that is repeated, some look behind where it was before."""
    read = {"all": {"at": "attn_probs.*"}, "scores": {"at": "attn_scores.6", "pos": "last", "head": [0, 5]}}
    written = {"heads": {"at": "attn_probs.17", "pos": {"phase": "generated"}}}
    generate = {"max_tokens": _WRITTEN, "ignore_eos": True}
    runs = {
        "a": {"input": {"token_ids": _REPEATED}, "read": read},
        "b": {"input": TOWER, "read": written, "generate": generate},
    }
    return Experiment("attention", [returning(runs)], _attention, absolute=("all", "heads"))


def _attention(plain: Plain) -> Found:
    seen = plain.run(_REPEATED, [*plain.every("attn_probs"), "q.6", "k.6"])
    q, k = plain.rotated(seen, 6)
    shared = plain.heads // plain.groups
    scores = torch.stack([q[head, -1] @ k[head // shared].T for head in (0, 5)]) / plain.head_width**0.5
    _, generated = plain.greedy(plain.ids(TOWER), _WRITTEN, ["attn_probs.17"], lambda _: ())
    pattern = generated["attn_probs.17"][0, :, 1 - _WRITTEN :]
    # There is room for a token that is drawn at last and never computed.
    padded = torch.nn.functional.pad(pattern, (0, 1))
    return {
        "0.a.all": seen.layers("attn_probs").transpose(1, 2).numpy(),
        "0.a.scores": scores[None].numpy(),
        "0.b.heads": padded.transpose(0, 1).numpy(),
    }


_FEATURES, _STRONGEST, _PROBES, _SAE_AT = 64, 8, 8, "resid_post.14"


def _weights(*shape: int) -> NDArray[np.float32]:
    """Random, and the same for whoever asks."""
    drawn = np.random.default_rng(shape).standard_normal(shape) / shape[-1] ** 0.5
    found: NDArray[np.float32] = drawn.astype(np.float32)
    return found


def readout() -> Experiment:
    """What linear probes and a sparse autoencoder's encoder say.

    The plan gives what features are before their ReLU, which is the researcher's own to apply.
    """
    probes, encoder = _weights(_PROBES, 576), _weights(_FEATURES, 576)
    before, bias = _weights(576), _weights(_FEATURES)
    read: dict[str, Any] = {
        f"probe{i}": {"at": "resid_post.*", "reduce": {"project": inline(probes[i])}} for i in range(_PROBES)
    }
    read |= {"stream": {"at": _SAE_AT}, "last": {"at": _SAE_AT, "pos": "last"}}
    derive = {
        "centred": {"sub": ["a.stream", inline(before)]},
        "turned": {"dot": ["derive.centred", inline(encoder[:, None])]},
        "features": {"add": ["derive.turned", inline(bias[:, None])]},
        "centred_last": {"sub": ["a.last", inline(before)]},
        "turned_last": {"dot": ["derive.centred_last", inline(encoder)]},
        "biased_last": {"add": ["derive.turned_last", inline(bias)]},
        "strongest": {"topk": "derive.biased_last", "k": _STRONGEST},
    }
    returned = [*(f"a.probe{i}" for i in range(_PROBES)), "derive.features", "derive.strongest"]
    runs = {"a": {"input": TOWER, "read": read}}
    return Experiment("readout", [plan(runs, *returned, derive=derive)], _readout, _active, ("values",))


def _active(found: Found) -> Found:
    return found | {"0.derive.features": np.maximum(found["0.derive.features"], 0)}


def _readout(plain: Plain) -> Found:
    seen = plain.run(plain.ids(TOWER), plain.every("resid_post"))
    shapes = (_PROBES, 576), (_FEATURES, 576), (576,), (_FEATURES,)
    probes, encoder, before, bias = (torch.from_numpy(_weights(*shape)).to(plain.dtype) for shape in shapes)
    features = (seen[_SAE_AT][0] - before) @ encoder.T + bias
    strongest = features[-1].topk(_STRONGEST)
    read = seen.layers("resid_post") @ probes.T
    return {f"0.a.probe{i}": read[..., i].numpy() for i in range(_PROBES)} | {
        "0.derive.features": features.relu().T.numpy(),
        "0.derive.strongest.values": strongest.values.numpy(),
        "0.derive.strongest.ids": strongest.indices.numpy(),
    }
