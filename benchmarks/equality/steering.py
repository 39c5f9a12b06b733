"""Experiments that push along directions: steering while tokens are generated, removal, clamping."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.equality.experiment import Experiment, Found
from benchmarks.equality.patching import predicted, predictions
from benchmarks.equality.plain import Edit, Edits, Plain, change
from benchmarks.equality.reading import TOWER, plan

_LOVE, _HATE = "The film was wonderful and I", "The film was terrible and I"
_PROMPT = "I think that you are"
_AT, _SCALE = 10, 4.0
_TOKENS = 8


def _direction(at: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs and derived values of a plan: what the ends of two sentences differ in at a site."""
    read = {"v": {"at": at, "pos": "last"}}
    runs = {"love": {"input": _LOVE, "read": read}, "hate": {"input": _HATE, "read": read}}
    return runs, {"direction": {"sub": ["love.v", "hate.v"]}}


def _difference(plain: Plain, at: str) -> Tensor:
    """The same, [width]."""
    love, hate = (plain.run(plain.ids(text), [at])[at][0, -1] for text in (_LOVE, _HATE))
    return love - hate


def steering() -> Experiment:
    """A direction added while tokens are generated: everywhere, and from the third token on."""
    runs, derive = _direction(f"resid_post.{_AT}")
    add = {"at": f"resid_post.{_AT}", "op": "add", "value": "derive.direction", "scale": _SCALE}
    generate = {"max_tokens": _TOKENS, "ignore_eos": True, "logprobs": 0}
    read = {"stream": {"at": "resid_post.*", "pos": {"phase": "generated"}}}
    run = {"input": _PROMPT, "generate": generate, "read": read}
    runs["whole"] = run | {"write": [add]}
    runs["late"] = run | {"write": [add | {"pos": {"phase": "generated", "from": 2}, "scale": 2 * _SCALE}]}
    returned = [f"{name}.{value}" for name in ("whole", "late") for value in ("tokens", "logprobs", "stream")]
    return Experiment("steering", [plan(runs, *returned, derive=derive)], _steering, absolute=("logprobs",))


def _steering(plain: Plain) -> Found:
    site, ids = f"resid_post.{_AT}", plain.ids(_PROMPT)
    direction = _difference(plain, site)

    def late(length: int) -> Edits:
        begun = len(ids) + 2
        if length <= begun:
            return ()
        return [(site, change(lambda rows: rows + 2 * _SCALE * direction, slice(begun, None)))]

    def whole(_length: int) -> Edits:
        return [(site, lambda rows: rows + _SCALE * direction)]

    found: Found = {}
    for name, edits in (("whole", whole), ("late", late)):
        tokens, seen = plain.greedy(ids, _TOKENS, plain.every("resid_post"), edits)
        written = torch.tensor(tokens)
        logprobs = torch.log_softmax(seen.logits[0, len(ids) - 1 :], -1).gather(1, written[:, None])
        found[f"0.{name}.tokens"] = written.numpy()
        found[f"0.{name}.logprobs"] = logprobs[:, 0].numpy()
        found[f"0.{name}.stream"] = seen.layers("resid_post", slice(len(ids), None)).numpy()
    return found


_SOURCE = "resid_post.15"
_PINNED = {"at": "mlp_act.8", "unit": [42]}


def directions() -> Experiment:
    """Removal from all that writes into the stream (Arditi and others 2024, arXiv 2406.11717); and less."""
    runs, derive = _direction(_SOURCE)
    along = {"value": "derive.direction"}
    writers = [
        "embeddings",
        *(f"{point}.{layer}" for layer in range(30) for point in ("attn_out", "mlp_out")),
    ]
    writes: dict[str, list[dict[str, Any]]] = {
        "removed": [{"at": at, "op": "project_out"} | along for at in writers],
        "clamped": [{"at": _SOURCE, "op": "clamp", "scale": 30.0} | along],
        "turned": [{"at": "resid_post.20", "op": "scale_along", "scale": -1.0} | along],
        "pinned": [_PINNED | {"op": "set", "value": 6.0}],
    }
    read = predicted() | {"stream": {"at": "resid_post.*", "pos": [3, -1]}}
    changed = {name: {"input": TOWER, "read": read, "write": write} for name, write in writes.items()}
    returned = [f"{name}.{value}" for name in changed for value in read]
    request = plan(runs | changed, *returned, derive=derive)
    return Experiment("directions", [request], _directions, absolute=("answers",))


def _directions(plain: Plain) -> Found:
    unit = torch.nn.functional.normalize(_difference(plain, _SOURCE), dim=-1)

    def component(rows: Tensor) -> Tensor:
        return (rows @ unit)[..., None] * unit

    def remove(rows: Tensor) -> Tensor:
        return rows - component(rows)

    everywhere: list[tuple[str, Edit]] = [("embeddings", remove)]
    for layer in range(plain.layers):
        everywhere += [(f"attn_out.{layer}", remove), (f"mlp_out.{layer}", remove)]
    edits: dict[str, Edits] = {
        "removed": everywhere,
        "clamped": [(_SOURCE, lambda rows: rows - component(rows) + 30.0 * unit)],
        "turned": [("resid_post.20", lambda rows: rows - 2 * component(rows))],
        "pinned": [("mlp_act.8", change(lambda rows: torch.full_like(rows, 6.0), columns=[42]))],
    }
    found: Found = {}
    for name, made in edits.items():
        seen = plain.run(plain.ids(TOWER), plain.every("resid_post"), made)
        found |= {f"0.{name}.{value}": array for value, array in predictions(seen).items()}
        found[f"0.{name}.stream"] = seen.layers("resid_post")[:, [3, -1]].numpy()
    return found
