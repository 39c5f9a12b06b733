"""Random plans that are valid, as JSON, and a small one to break in tests."""

from __future__ import annotations

import base64
import math

from hypothesis import strategies as st

from transom.schema.plans.values import RESERVED_NAMES
from transom.schema.points import POINTS, TRANSFORMER_LENS_BLOCK

ARTIFACT = "artifact:" + "0123456789abcdef" * 4


def small_plan():
    """Patching one site after another from a clean run, steered by a mean, with gradients beside."""
    return {
        "model": "tiny",
        "runs": {
            "clean": {
                "input": "When Mary and John",
                "read": {
                    "resid": {"at": "resid_post.*", "pos": "last"},
                    "lens": {"at": "resid_post.3", "reduce": {"unembed": {"topk": 5}}},
                    "middle": {"at": "attn_out.2", "reduce": "mean"},
                },
            },
            "patched": {
                "input": {"token_ids": [1, 2]},
                "generate": {"max_tokens": 3, "logprobs": 2},
                "write": [
                    {"at": "resid_pre.{layer}", "pos": "{pos}", "op": "swap", "value": {"run": "clean"}},
                    {"at": "attn_out.2", "op": "mean", "value": "clean.middle"},
                    {"at": "z.1", "head": [0, 1], "op": "zero"},
                    {"at": "mlp_act.0", "op": "add", "value": {"inline": [[1, 2.5]]}, "scale": 2},
                ],
                "read": {"logits": {"at": "lm_head", "pos": "last"}},
            },
            "slope": {
                "input": {"prompt": "When"},
                "grad": {
                    "of": {"logit_diff": [1, 2]},
                    "wrt": {"e": {"at": "embeddings"}},
                    "mode": {"integrated": 8, "baseline": "clean"},
                },
            },
        },
        "derive": {
            "change": {"sub": ["clean.resid", "slope.e"]},
            "most": {"topk": "derive.change", "k": 3},
        },
        "return": ["patched.logits", "derive.most", "clean.lens", "patched.tokens"],
        "sweep": {"layer": "all", "pos": [0, -1]},
    }


names = st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True).filter(lambda name: name not in RESERVED_NAMES)
read_names = names.filter(lambda name: name not in {"tokens", "logprobs"})
token_ids = st.integers(0, 2**31 - 1)
positions = st.integers(-(2**31), 2**31 - 1)
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-(2**64), 2**64)


def maybe(**fields):
    return st.fixed_dictionaries({}, optional=fields)


def also(required, optional):
    return st.fixed_dictionaries(required, optional=optional)


@st.composite
def packed(draw):
    dtype = draw(st.sampled_from(["float32", "bfloat16", "float16"]))
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    size = math.prod(shape) * (4 if dtype == "float32" else 2)
    # No byte above 0x3f, so that no exponent is all ones.
    raw = bytes(draw(st.lists(st.integers(0, 0x3F), min_size=size, max_size=size)))
    return {"inline": {"dtype": dtype, "shape": shape, "b64": base64.b64encode(raw).decode()}}


@st.composite
def nested(draw):
    def rows(shape):
        if not shape:
            return draw(numbers)
        return [rows(shape[1:]) for _ in range(shape[0])]

    return {"inline": rows(draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))}


inline = packed() | nested()
spans = st.tuples(st.integers(0, 9), st.integers(10, 20)).map(lambda ends: {"from": ends[0], "to": ends[1]})
pos = st.one_of(
    st.sampled_from(["all", "last"]),
    positions,
    st.lists(positions, min_size=1, max_size=4, unique=True),
    spans,
    st.builds(lambda start: {"from": start}, positions),
    also({"match": st.text(min_size=1, max_size=5)}, {"nth": st.integers(0, 5)}),
    spans.map(lambda span: span | {"phase": "prompt"}),
)


@st.composite
def sites(draw, *, writable=False, several=False, generates=False):
    choices = [point for point in POINTS.values() if point.writable or not writable]
    point = draw(st.sampled_from(choices))
    layers = st.integers(0, 99).map(str)
    if several:
        layers |= st.just("*") | st.tuples(st.integers(0, 9), st.integers(9, 99)).map("{0[0]}-{0[1]}".format)
    site = {"at": f"{point.name}.{draw(layers)}" if point.layered else point.name}
    hooks = [hook for hook, name in TRANSFORMER_LENS_BLOCK.items() if name == point.name]
    if hooks and draw(st.booleans()):
        site["at"] = f"blocks.{draw(layers)}.{draw(st.sampled_from(hooks))}"
    generated = spans.map(lambda span: span | {"phase": "generated"})
    site |= draw(maybe(pos=pos | generated if generates else pos, unit=_indices))
    if point.has_heads:
        site |= draw(maybe(head=_indices))
    return site


_indices = st.lists(st.integers(0, 40), min_size=1, max_size=4, unique=True)


@st.composite
def reads(draw, refs, *, generates):
    read = draw(sites(several=True, generates=generates))
    kinds = [st.sampled_from(["none", "mean", "norm"]), st.fixed_dictionaries({"project": refs})]
    wide = read["at"].partition(".")[0] in {"resid_pre", "resid_post", "embeddings", "mlp_out"}
    if wide and "unit" not in read:
        kinds.append(_lens)
    return read | draw(maybe(reduce=st.one_of(kinds)))


_lens = st.one_of(
    st.builds(lambda k: {"topk": k}, st.integers(1, 50)),
    st.builds(lambda ids: {"targets": ids}, st.lists(token_ids, min_size=1, max_size=3, unique=True)),
    st.just({"vocabulary": True}),
).map(lambda what: {"unembed": what})


@st.composite
def writes(draw, refs, runs, *, generates):
    operations = [
        also({"op": st.just("set"), "value": refs | numbers}, {}),
        also({"op": st.just("add"), "value": refs | numbers}, {"scale": numbers}),
        st.just({"op": "zero"}),
        also({"op": st.just("mean"), "value": inline | st.just(ARTIFACT)}, {}),
        also({"op": st.just("noise"), "scale": st.floats(0, 9)}, {}),
        also({"op": st.sampled_from(["scale_along", "clamp"]), "value": refs, "scale": numbers}, {}),
        also({"op": st.just("project_out"), "value": refs}, {}),
    ]
    if runs:
        operations.append(_other(runs).map(lambda run: {"op": "swap", "value": {"run": run}}))
    return draw(sites(writable=True, generates=generates)) | draw(st.one_of(operations))


def _other(runs):
    return st.sampled_from(sorted(runs))


@st.composite
def grads(draw, refs, runs, wrt_names):
    of = [
        st.lists(token_ids, min_size=2, max_size=2, unique=True).map(lambda pair: {"logit_diff": pair}),
        also({"logprob": token_ids}, {"pos": positions}),
        st.tuples(sites(), refs).map(lambda pair: {"dot": list(pair)}),
    ]
    mode = [st.sampled_from(["grad", "grad_x_input"]), st.integers(1, 64).map(lambda n: {"integrated": n})]
    if runs:
        of.append(_other(runs).map(lambda run: {"kl": run}))
        mode.append(_other(runs).map(lambda run: {"grad_x_delta": run}))
        mode.append(_other(runs).map(lambda run: {"integrated": 2, "baseline": run}))
    wrt = {name: draw(sites(writable=True)) for name in wrt_names}
    return {"of": draw(st.one_of(of)), "wrt": wrt} | draw(maybe(mode=st.one_of(mode)))


_inputs = st.one_of(
    st.text(max_size=8),
    st.just({"messages": [{"role": "user", "content": "Hello"}]}),
    st.lists(token_ids, min_size=1, max_size=4).map(lambda ids: {"token_ids": ids}),
    also({"prompt": st.text(max_size=8)}, {"add_special_tokens": st.booleans()}),
)
_generate = also(
    {"max_tokens": st.integers(1, 99)},
    {
        "temperature": st.floats(0, 10) | st.just(1),
        "top_k": st.integers(-1, 99),
        "top_p": st.floats(0.1, 1),
        "min_p": st.floats(0, 1),
        "stop_token_ids": st.lists(token_ids, max_size=3),
        "ignore_eos": st.booleans(),
        "logprobs": st.integers(0, 20),
    },
)


@st.composite
def plans(draw):
    runs, taken, offered = {}, [ARTIFACT, ARTIFACT + "#W_dec.0"], []
    for name in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        refs = st.sampled_from(taken) | inline
        run = {"input": draw(_inputs)} | draw(maybe(generate=_generate))
        generates = "generate" in run
        own = draw(st.lists(read_names, min_size=1, max_size=4, unique=True))
        run["read"] = {read: draw(reads(refs, generates=generates)) for read in own[:2]}
        run["write"] = draw(st.lists(writes(refs, list(runs), generates=generates), max_size=2))
        if own[2:]:
            run["grad"] = draw(grads(refs, list(runs), own[2:]))
        runs[name] = run
        offered += [f"{name}.{output}" for output in own]
        taken += [f"{name}.{output}" + _one_part(run["read"].get(output, {})) for output in own]
    derive = draw(st.dictionaries(names, _expressions(taken), max_size=3))
    offered += [f"derive.{name}" for name in derive]
    returned = draw(st.lists(st.sampled_from(offered), min_size=1, max_size=4, unique=True))
    rest = maybe(seed=st.integers(-(2**63), 2**63 - 1), format=st.sampled_from(["safetensors", "json"]))
    return {"model": "tiny", "runs": runs, "derive": derive, "return": returned} | draw(rest)


def _one_part(read):
    reduce = read.get("reduce")
    return ".logprobs" if isinstance(reduce, dict) and "topk" in reduce.get("unembed", {}) else ""


def _expressions(taken):
    ref = st.sampled_from(taken) | inline
    several = st.lists(ref, min_size=1, max_size=3)
    two = st.lists(ref, min_size=2, max_size=2)
    return st.one_of(
        st.fixed_dictionaries({"sub": two}),
        st.fixed_dictionaries({"add": several}),
        st.tuples(ref, numbers).map(lambda pair: {"scale": list(pair)}),
        also({"mean": ref}, {"axis": st.sampled_from(["layer", "position", "head"])}),
        st.fixed_dictionaries({"mean": several}),
        st.fixed_dictionaries({"stack": several}),
        st.fixed_dictionaries({"dot": two}),
        st.fixed_dictionaries({"normalize": ref}),
        st.fixed_dictionaries({"topk": ref, "k": st.integers(1, 9)}),
    )
