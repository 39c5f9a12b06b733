"""Valid plans of every kind for a tiny model, and ways to break them."""

from __future__ import annotations

import base64
import copy
from typing import Any

import numpy as np

CLEAN = {"token_ids": list(range(10, 24))}
OTHER = {"token_ids": [*range(10, 14), 99, *range(15, 24)]}
SHORT = {"token_ids": [30, 31, 32]}
GENERATED = {"phase": "generated"}


def packed(*shape: int) -> dict[str, Any]:
    numbers = np.linspace(-1, 1, int(np.prod(shape)), dtype="<f4")
    return {
        "inline": {
            "dtype": "float32",
            "shape": list(shape),
            "b64": base64.b64encode(numbers.tobytes()).decode(),
        }
    }


def plan(runs: dict[str, Any], *returned: str, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "runs": runs, "return": list(returned), "format": "safetensors", **more}


def lens(at: str, pos: Any = "last", **what: Any) -> dict[str, Any]:
    return {"at": at, "pos": pos, "reduce": {"unembed": what}}


def write(at: str, op: str, **more: Any) -> dict[str, Any]:
    return {"at": at, "op": op, **more}


def everywhere() -> dict[str, Any]:
    """Reads at every kind of point, in every form."""
    read = {
        "all": {"at": "resid_post.*"},
        "some": {"at": "resid_pre.0-1", "pos": [0, -1]},
        "heads": {"at": "z.1", "head": [3, 0], "pos": {"from": 2, "to": -2}},
        "units": {"at": "mlp_act.2", "unit": [5, 1, 127], "pos": {"match": "a", "nth": 0}},
        "pattern": {"at": "attn_probs.1", "pos": "last"},
        "scores": {"at": "attn_scores.1", "head": [1]},
        "mean": {"at": "mlp_out.1", "reduce": "mean"},
        "norm": {"at": "resid_mid.*", "reduce": "norm"},
        "along": {"at": "resid_post.1", "reduce": {"project": packed(64)}},
        "rows": {"at": "resid_post.*", "pos": "last", "reduce": {"project": packed(5, 64), "matrix": True}},
        "lens": lens("resid_post.*", topk=3),
        "targets": lens("resid_mid.1", "all", targets=[5, 6]),
        "whole": lens("embeddings", vocabulary=True),
        "logits": {"at": "lm_head", "pos": "last", "unit": [1, 2]},
    }
    run = {"input": "The light in a window", "read": read}
    return plan({"a": run}, *(f"a.{name}" for name in read))


def written() -> dict[str, Any]:
    """Every operation, with values of every kind."""
    source = {
        "input": CLEAN,
        "read": {
            "x": {"at": "resid_post.1", "pos": [3]},
            "mean": {"at": "resid_post.0", "reduce": "mean"},
            "z": {"at": "z.1", "reduce": "mean"},
        },
    }
    changes = [
        write("resid_pre.0", "set", pos=[1, 2], value="s.x"),
        write("resid_post.0", "mean", value="s.mean"),
        write("mlp_act.1", "set", unit=[3], value=0.5),
        write("mlp_in.1", "add", value=packed(64), scale=-0.25),
        write("z.1", "zero", head=[0, 2]),
        write("z.2", "scale_along", value="s.z", scale=2.0),
        write("attn_out.1", "noise", scale=0.1),
        write("resid_mid.1", "project_out", value="s.mean"),
        write("resid_mid.2", "clamp", value=packed(64), scale=1.0),
        write("value.0", "swap", pos={"from": 2, "to": 5}, value={"run": "s"}),
        write("attn_probs.2", "set", head=[1], pos="last", value=0.1),
    ]
    run = {
        "input": OTHER,
        "write": changes,
        "read": {"out": lens("resid_post.2", topk=2), "x": {"at": "resid_post.*"}},
    }
    return plan({"s": source, "t": run}, "t.out", "t.x", "s.x", seed=7)


def generating() -> dict[str, Any]:
    read = {
        "x": {"at": "resid_post.1", "pos": GENERATED},
        "first": {"at": "z.0", "pos": {"phase": "generated", "from": 0, "to": 1}},
        "mean": {"at": "resid_post.2", "pos": GENERATED, "reduce": "mean"},
        "lens": lens("resid_post.*", GENERATED, topk=2),
    }
    run = {
        "input": SHORT,
        "generate": {"max_tokens": 4, "temperature": 1.0, "top_k": 50, "logprobs": 1},
        "write": [write("resid_mid.1", "add", value=0.5, pos=GENERATED)],
        "read": read,
    }
    returned = [*(f"a.{name}" for name in read), "a.tokens", "a.logprobs"]
    return plan({"a": run}, *returned, seed=3)


def derived() -> dict[str, Any]:
    runs = {
        "a": {
            "input": CLEAN,
            "read": {"x": {"at": "resid_post.*", "pos": [0, 5]}, "l": lens("resid_post.2", topk=4)},
        },
        "b": {"input": OTHER, "read": {"x": {"at": "resid_post.*", "pos": [0, 5]}, "h": {"at": "z.*"}}},
        "c": {
            "input": OTHER,
            "write": [write("resid_post.1", "add", value="derive.steer", scale=3.0)],
            "read": {"y": {"at": "final_norm", "reduce": {"project": "derive.unit"}}},
        },
    }
    derive = {
        "gap": {"sub": ["a.x", "b.x"]},
        "late": {"mean": "derive.gap", "axis": "layer"},
        "steer": {"mean": "derive.late", "axis": "pos"},
        "unit": {"normalize": "derive.steer"},
        "sum": {"add": ["a.x", "b.x", packed(64)]},
        "twice": {"scale": ["derive.sum", 2]},
        "pile": {"stack": ["a.x", "b.x"]},
        "mid": {"mean": ["a.x", "b.x"]},
        "all": {"mean": "b.h"},
        "dots": {"dot": ["a.x", "derive.steer"]},
        "best": {"topk": "derive.twice", "k": 3},
        "likely": {"scale": ["a.l.logprobs", -1]},
    }
    return plan(runs, *(f"derive.{name}" for name in derive), "c.y", derive=derive)


def swept() -> dict[str, Any]:
    out = {"at": "lm_head", "pos": "last", "unit": [5, 6]}
    change = write("resid_post.{layer}", "swap", pos="{pos}", value={"run": "clean"})
    runs = {
        "clean": {"input": CLEAN, "read": {"out": out}},
        "plain": {"input": OTHER, "read": {"out": out}},
        "cell": {"input": OTHER, "read": {"out": out}, "write": [change]},
    }
    return plan(runs, "clean.out", "cell.out", sweep={"layer": "all", "pos": [0, 4, -1]})


def graded() -> dict[str, Any]:
    first = {
        "of": {"logit_diff": [5, 6]},
        "wrt": {"g": {"at": "resid_post.*"}, "h": {"at": "z.1", "head": [1], "pos": "last"}},
        "mode": "grad_x_input",
    }
    second = {
        "of": {"logprob": 7, "pos": 3},
        "wrt": {"g": {"at": "mlp_out.0", "pos": [1, 2]}},
        "mode": {"integrated": 2, "baseline": "a"},
    }
    runs = {"a": {"input": CLEAN, "grad": first}, "b": {"input": OTHER, "grad": second}}
    return plan(runs, "a.g", "a.h", "b.g")


PLANS = {make.__name__: make() for make in (everywhere, written, generating, derived, swept, graded)}

JUNK: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 5, 13, 64, 1000, 2**31, 2**63, 10**400, -(10**400)),
    *(0.5, -0.0, 1e12, 3e38, -3e38, 1e39, float("nan"), float("inf")),
    *("", "x", "all", "last", "{pos}", "{layer}", "../../etc/passwd", "a/b", "\x00", "\ud800", "é" * 5000),
    *("a.x", "s.x", "t.x", "a.tokens", "a.logprobs", "derive.gap", "derive.best.values", "a.lens.ids", "a.g"),
    *("artifact:" + "f" * 64, "resid_post.*", "resid_post.{layer}", "resid_post.99", "resid_post.2-1"),
    *("attn_probs.0", "attn_scores.*", "z.1", "k_rot.2", "final_norm", "embeddings", "lm_head", "mlp_pre.1"),
    *("blocks.0.hook_mlp_out", "blocks.1.attn.hook_pattern", "mean", "norm", "swap", "noise", "project_out"),
    *(
        "zero",
        "clamp",
        "set",
        "grad",
        "grad_x_input",
        "layer",
        "pos",
        "head",
        "unit",
        "token",
        "rank",
        "step",
    ),
    *([], {}, [[]], [None], ["{head}"], [0], [1, 1], [-1, 0], [[1], [2, 3]], list(range(2000))),
    *({"inline": []}, {"inline": [1]}, {"inline": [[0.0] * 64]}, {"inline": [1e39]}, {"inline": "x"}),
    {"inline": {"dtype": "float32", "shape": [2**31 - 1] * 8, "b64": "AAAA"}},
    {"inline": {"dtype": "float64", "shape": [1], "b64": "AAAA"}},
    *({"run": "s"}, {"run": "a"}, {"run": "t"}, {"run": "clean"}, {"from": 3, "to": 2}, {"from": -2}),
    *(GENERATED, {"phase": "prompt", "from": 1}, {"match": "a", "nth": 2**31}, {"match": "zzz"}),
    *({"unembed": {"topk": 2**30}}, {"unembed": {"vocabulary": True}}, {"unembed": {"targets": [383, 384]}}),
    *({"project": "a.x"}, {"project": {"inline": [[1]] * 500}}, {"max_tokens": 2**31}, {"max_tokens": 2}),
    *({"layer": "all"}, {"pos": "all", "layer": "all", "head": "all"}, {"head": [0, 9]}),
    *(packed(64), packed(1), packed(14, 64), packed(500, 1, 1), packed(4, 16), CLEAN, SHORT),
    *({"kl": "a"}, {"dot": [{"at": "resid_post.1"}, packed(64)]}, {"logprob": 2**30}, {"integrated": 64}),
]


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a JSON value but the whole."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if path else []
    for key, item in items:
        found += places(item, (*path, key))
    return found


def changed(content: Any, path: tuple[str | int, ...], how: str, junk: Any) -> Any:
    """A copy with something else at a place: junk, nothing, another name, or twice the same."""
    whole = copy.deepcopy(content)
    *way, last = path
    holder = whole
    for part in way:
        holder = holder[part]
    # Of these nothing that is parsed from JSON is called, or they are the name of nothing.
    is_name = isinstance(junk, str) and junk not in ("", "\ud800")
    if how == "drop":
        del holder[last]
    elif how == "rename" and isinstance(holder, dict) and is_name:
        holder[junk] = holder.pop(last)
    elif how == "twice" and isinstance(holder, list):
        holder.insert(last, copy.deepcopy(holder[last]))
    elif how == "beside" and isinstance(holder, dict):
        holder[junk if is_name else "x"] = junk
    else:
        holder[last] = junk
    return whole
