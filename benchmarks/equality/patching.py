"""Experiments that patch: sweeps, ablations, and paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.equality.experiment import Experiment, Found
from benchmarks.equality.plain import EVERY, Edit, Edits, Plain, Seen, become, change
from benchmarks.equality.reading import COLOSSEUM, TOWER, plan, returning

ANSWERS = [7042, 7268]
""" Paris" and " Rome"."""


def swap(at: str, run: str, **more: Any) -> dict[str, Any]:
    """A write that takes over what another run has."""
    return {"at": at, "op": "swap", "value": {"run": run}} | more


def sides() -> dict[str, Any]:
    """The two unchanged runs of a comparison; their prompts have as many tokens."""
    return {"clean": {"input": TOWER}, "corrupt": {"input": COLOSSEUM}}


_SOME_LAYERS = list(range(4, 30, 5))


def predicted() -> dict[str, Any]:
    """Reads of what the last position predicts."""
    last = {"at": "lm_head", "pos": "last"}
    return {"logits": last, "answers": last | {"unit": ANSWERS}}


def predictions(seen: Seen) -> Found:
    """The same of a plain forward."""
    last = seen.logits[0, -1:]
    return {"logits": last.numpy(), "answers": last[:, ANSWERS].numpy()}


def patching() -> Experiment:
    """What the clean run has at one place, put into the corrupt run: everywhere, one at a time."""
    read = {"answers": {"at": "lm_head", "pos": "last", "unit": ANSWERS}}
    corrupt = {"input": COLOSSEUM, "read": read}
    stream = corrupt | {"write": [swap("resid_post.{layer}", "clean", pos="{pos}")]}
    heads = corrupt | {"write": [swap("z.{layer}", "clean", head=["{head}"])]}
    requests = [
        plan(sides() | {"patched": run}, "patched.answers", sweep=sweep)
        for run, sweep in (
            (stream, {"layer": "all", "pos": "all"}),
            (heads, {"layer": _SOME_LAYERS, "head": "all"}),
        )
    ]
    return Experiment("patching", requests, _patching, absolute=("answers",))


def _patching(plain: Plain) -> Found:
    clean, corrupt = (torch.tensor(plain.ids(text)) for text in (TOWER, COLOSSEUM))
    kept = plain.run(clean, [*plain.every("resid_post"), *plain.every("z")])
    stream, heads = [], []
    for layer in range(plain.layers):
        site = f"resid_post.{layer}"
        each = [(slice(i, i + 1), EVERY) for i in range(len(clean))]
        edits = [(site, _row_by_row(kept[site][0], each))]
        stream.append(_answers(plain, corrupt.repeat(len(clean), 1), edits, ANSWERS))
    for layer in _SOME_LAYERS:
        site = f"z.{layer}"
        edits = [(site, _head_by_head(plain, kept[site][0]))]
        heads.append(_answers(plain, corrupt.repeat(plain.heads, 1), edits, ANSWERS))
    return {
        "0.patched.answers": torch.stack(stream)[:, :, None].numpy(),
        "1.patched.answers": torch.stack(heads)[:, :, None].numpy(),
    }


def _row_by_row(value: Tensor, cells: Sequence[tuple[slice, slice]]) -> Edit:
    """In each sequence of a batch, some positions and columns become those of a value."""

    def edit(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        for sequence, (rows, columns) in enumerate(cells):
            changed[sequence, rows, columns] = value[rows, columns]
        return changed

    return edit


def _head_by_head(plain: Plain, value: Tensor) -> Edit:
    """Each sequence of a batch gets another head of a value."""
    return _row_by_row(value, [(EVERY, plain.head(head)) for head in range(plain.heads)])


def _answers(plain: Plain, ids: Tensor, edits: Edits, tokens: list[int]) -> Tensor:
    """The last logits of some tokens: [sequences, tokens]."""
    return plain.run(ids, edits=edits, only_last=True).logits[:, 0, tokens]


_HEADS, _UNITS = [2, 7], [3, 100, 511, 1535]
_NORMAL = [
    "Water boils at a temperature of",
    "Once upon a time there was a",
    "The quick brown fox jumps over the lazy dog",
]
_PARTS: dict[str, dict[str, Any]] = {
    "heads": {"at": "z.13", "head": _HEADS},
    "layers": {"at": "mlp_out.9"},
    "units": {"at": "mlp_act.21", "unit": _UNITS},
}


def ablation() -> Experiment:
    """Parts set to zero, to their mean over other prompts, and to what they are for another prompt."""
    means = {name: part | {"reduce": "mean"} for name, part in _PARTS.items()}
    runs: dict[str, Any] = {f"n{i}": {"input": text, "read": means} for i, text in enumerate(_NORMAL)}
    runs |= sides()
    derive = {name: {"mean": [f"n{i}.{name}" for i in range(len(_NORMAL))]} for name in _PARTS}
    how: dict[str, Any] = {
        "zero": lambda _: {"op": "zero"},
        "mean": lambda name: {"op": "mean", "value": f"derive.{name}"},
        "resample": lambda _: {"op": "swap", "value": {"run": "corrupt"}},
    }
    read = predicted() | {"stream": {"at": "resid_post.29"}}
    ablated: dict[str, Any] = {
        f"{kind}_{name}": {"input": TOWER, "read": read, "write": [part | make(name)]}
        for kind, make in how.items()
        for name, part in _PARTS.items()
    }
    # Attention as a whole is a layer too.
    write: list[dict[str, Any]] = [{"at": "attn_out.4", "op": "zero"}]
    ablated["zero_attention"] = {"input": TOWER, "read": read, "write": write}
    returned = [f"{name}.{value}" for name in ablated for value in read]
    request = plan(runs | ablated, *returned, derive=derive)
    return Experiment("ablation", [request], _ablation, absolute=("answers",))


def _ablation(plain: Plain) -> Found:
    columns: dict[str, Any] = {
        "heads": [unit for head in _HEADS for unit in range(plain.width)[plain.head(head)]],
        "layers": EVERY,
        "units": _UNITS,
    }
    sites = {name: str(part["at"]) for name, part in _PARTS.items()}
    others = [plain.run(plain.ids(text), list(sites.values())) for text in _NORMAL]
    corrupt = plain.run(plain.ids(COLOSSEUM), list(sites.values()))
    edits: dict[str, Edits] = {"zero_attention": [("attn_out.4", torch.zeros_like)]}
    for name, site in sites.items():
        chosen = columns[name]
        mean = torch.stack([seen[site][0].mean(0) for seen in others]).mean(0)
        edits |= {
            f"zero_{name}": [(site, change(torch.zeros_like, EVERY, chosen))],
            f"mean_{name}": [(site, become(mean[chosen], EVERY, chosen))],
            f"resample_{name}": [(site, become(corrupt[site][0, :, chosen], EVERY, chosen))],
        }
    found: Found = {}
    for name, edit in edits.items():
        seen = plain.run(plain.ids(TOWER), ["resid_post.29"], edit)
        found |= {f"0.{name}.{value}": array for value, array in predictions(seen).items()}
        found[f"0.{name}.stream"] = seen["resid_post.29"][0].numpy()
    return found


_ORIGINAL = "When Mary and John went to the store, John gave a drink to"
_OTHER = "When Mary and John went to the store, Mary gave a drink to"
_NAMES = [5099, 2322]
""" Mary" and " John"."""
_SENDERS = [(12, 3), (15, 8), (17, 0)]
_RECEIVER = (22, 5)
_DIRECT = list(range(20, 30, 2))


def paths() -> Experiment:
    """Wang and others 2022 (arXiv 2211.00593); Goldowsky-Dill and others 2023 (arXiv 2304.05969).

    All heads are frozen at what they are for the original prompt, and one sender gets what it is for the
    other prompt. Frozen are heads and not MLPs, so that a path may go through MLPs. What reaches the
    logits, or the queries of a receiver, came by the direct path.
    """
    original, other = {"input": _ORIGINAL}, {"input": _OTHER}
    both: dict[str, Any] = {"original": original, "other": other}
    frozen = [swap(f"z.{layer}", "original") for layer in range(30)]
    names = {"answers": {"at": "lm_head", "pos": "last", "unit": _NAMES}}
    direct = original | {
        "write": [*frozen, swap("z.{layer}", "other", head=["{head}"])],
        "read": names,
    }
    to_logits = plan(both | {"sent": direct}, "sent.answers", sweep={"layer": _DIRECT, "head": "all"})
    layer, head = _RECEIVER
    runs = dict(both)
    for sender, (at, which) in enumerate(_SENDERS):
        write = [*frozen[:layer], swap(f"z.{at}", "other", head=[which])]
        query = {"query": {"at": f"q.{layer}", "head": [head]}}
        runs[f"sent{sender}"] = original | {"write": write, "read": query}
        given = {"at": f"q.{layer}", "head": [head], "op": "set", "value": f"sent{sender}.query"}
        runs[f"received{sender}"] = original | {"write": [given], "read": names}
    return Experiment("paths", [to_logits, returning(runs)], _paths, absolute=("answers",))


def _paths(plain: Plain) -> Found:
    ids, other = (plain.ids(text) for text in (_ORIGINAL, _OTHER))
    kept, sent = plain.run(ids, plain.every("z")), plain.run(other, plain.every("z"))

    def frozen(layers: int) -> list[tuple[str, Edit]]:
        return [(f"z.{layer}", become(kept[f"z.{layer}"])) for layer in range(layers)]

    batch = torch.tensor(ids).repeat(plain.heads, 1)
    cells = [
        _answers(plain, batch, [*frozen(30), (site, _head_by_head(plain, sent[site][0]))], _NAMES)
        for site in (f"z.{layer}" for layer in _DIRECT)
    ]
    found: Found = {"0.sent.answers": torch.stack(cells)[:, :, None].numpy()}
    layer, head = _RECEIVER
    site, columns = f"q.{layer}", plain.head(head)
    for sender, (at, which) in enumerate(_SENDERS):
        chosen, given = plain.head(which), sent[f"z.{at}"]
        edits = [*frozen(layer), (f"z.{at}", become(given[:, :, chosen], EVERY, chosen))]
        query = plain.run(ids, [site], edits)[site][:, :, columns]
        received = plain.run(ids, edits=[(site, become(query, EVERY, columns))], only_last=True)
        found[f"1.sent{sender}.query"] = query[0, :, None].numpy()
        found[f"1.received{sender}.answers"] = received.logits[0, :, _NAMES].numpy()
    return found
