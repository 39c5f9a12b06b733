"""What is wrong with a read, a write or a gradient is refused once, at the very field, with what to do."""

from __future__ import annotations

import pytest
from plan_breaking import GRAD, LENS, READ, STEER, ZERO, assert_refused, changed, findings
from plan_strategies import ARTIFACT


@pytest.mark.parametrize(
    ("value", "below", "message"),
    [
        ("first", (), "'last'"),
        (1.5, (), 'must be "all", "last"'),
        (True, (), 'must be "all", "last"'),
        (2**31, (), "less than"),
        ([], (), "at least 1"),
        ([1, 1], (), "names 1 twice"),
        ([1, "2"], (1,), "valid integer"),
        (list(range(1025)), (), "at most 1024"),
        ({}, ("from",), "required"),
        ({"to": 3}, ("from",), "required"),
        ({"from": 3, "to": 3}, ("to",), "above from"),
        ({"from": -1, "to": -2}, ("to",), "above from"),
        ({"from": 0, "to": 1, "step": 2}, ("step",), "not permitted"),
        ({"from": "0"}, ("from",), "valid integer"),
        ({"match": ""}, ("match",), "at least 1"),
        ({"match": "x", "nth": -1}, ("nth",), "greater than or equal to 0"),
        ({"match": "x", "from": 1}, ("from",), "not permitted"),
        ({"phase": "thought"}, ("phase",), "'prompt' or 'generated'"),
        ({"phase": "prompt", "from": 2, "to": 1}, ("to",), "above from"),
        ({"phase": "generated", "from": -1}, ("from",), "must be 0 or more"),
        ({"phase": "generated"}, (), "add generate to it"),
    ],
)
def test_positions_are_refused(value, below, message):
    assert_refused((*READ, "pos"), value, (*READ, "pos", *below), message)


@pytest.mark.parametrize(
    ("path", "value", "loc", "message"),
    [
        ((*READ, "at"), "resid_pst.3", (*READ, "at"), "nearest are resid_post"),
        ((*READ, "at"), 5, (*READ, "at"), "valid string"),
        ((*READ, "at"), "resid_post." + "9" * 200, (*READ, "at"), "at most 128"),
        ((*READ, "at"), ..., (*READ, "at"), "required"),
        ((*READ, "head"), [0], (*READ, "head"), "resid_post has no heads"),
        ((*ZERO, "head"), 0, (*ZERO, "head"), "must be a list of heads"),
        ((*ZERO, "head"), [], (*ZERO, "head"), "at least 1"),
        ((*ZERO, "head"), [-1], (*ZERO, "head", 0), "greater than or equal to 0"),
        ((*ZERO, "head"), [1, 1], (*ZERO, "head"), "names 1 twice"),
        ((*ZERO, "head"), ["{head}", "{head}"], (*ZERO, "head"), "at most 1"),
        ((*ZERO, "head"), ["0"], (*ZERO, "head", 0), "'{head}'"),
        ((*ZERO, "unit"), [-1], (*ZERO, "unit", 0), "greater than or equal to 0"),
        ((*ZERO, "at"), "z.*", (*ZERO, "at"), "a write takes one; name one, as in z.5"),
        ((*ZERO, "at"), "z.1-2", (*ZERO, "at"), "a write takes one"),
        ((*ZERO, "at"), "k_rot.1", (*ZERO, "at"), "read only; write at k"),
        ((*ZERO, "at"), "blocks.1.attn.hook_attn_scores", (*ZERO, "at"), "read only; write at attn_probs"),
        ((*LENS, "at"), "z.3", (*LENS, "reduce", "unembed"), "as wide as the residual stream"),
        ((*LENS, "at"), "final_norm", (*LENS, "reduce", "unembed"), "the final norm twice"),
        ((*LENS, "unit"), [1], (*LENS, "unit"), "takes whole vectors"),
        ((*LENS, "reduce"), "max", (*LENS, "reduce"), "'none', 'mean' or 'norm'"),
        ((*LENS, "reduce"), {"max": 1}, (*LENS, "reduce"), "either project or unembed"),
        ((*LENS, "reduce"), ["mean"], (*LENS, "reduce"), "either project or unembed"),
        ((*LENS, "reduce", "unembed"), {}, (*LENS, "reduce", "unembed"), "exactly one of topk"),
        ((*LENS, "reduce", "unembed"), {"topk": 0}, (*LENS, "reduce", "unembed", "topk"), "equal to 1"),
        ((*LENS, "reduce", "unembed", "vocabulary"), True, (*LENS, "reduce", "unembed"), "exactly one"),
        ((*LENS, "reduce"), {"project": 5}, (*LENS, "reduce", "project"), "must be a reference"),
        ((*LENS, "reduce"), {"project": [1]}, (*LENS, "reduce", "project"), "must be a reference"),
    ],
)
def test_a_site_is_refused(path, value, loc, message):
    assert_refused(path, value, loc, message)


def test_a_false_vocabulary_is_no_way_to_ask_for_nothing():
    (error,) = findings(changed((*LENS, "reduce", "unembed"), {"vocabulary": False}))
    assert error["loc"] == (*LENS, "reduce", "unembed", "vocabulary")


@pytest.mark.parametrize(
    ("write", "field", "message"),
    [
        ({"op": "set"}, "value", "must be a reference or a number for set"),
        ({"op": "set", "value": 1, "scale": 2}, "scale", "not taken by set"),
        ({"op": "set", "value": {"run": "clean"}}, "value", "must be a reference or a number"),
        ({"op": "add"}, "value", "must be a reference or a number for add"),
        ({"op": "zero", "value": 0}, "value", "not taken by zero"),
        ({"op": "zero", "scale": 0}, "scale", "not taken by zero"),
        ({"op": "mean", "value": 0}, "value", "must be a reference for mean"),
        ({"op": "mean"}, "value", "must be a reference for mean"),
        ({"op": "noise"}, "scale", "required by noise"),
        ({"op": "noise", "scale": -1}, "scale", "give 0 or more"),
        ({"op": "noise", "scale": 1, "value": 1}, "value", "not taken by noise"),
        ({"op": "scale_along", "value": ARTIFACT}, "scale", "required by scale_along"),
        ({"op": "scale_along", "value": 1, "scale": 1}, "value", "must be a reference for scale_along"),
        ({"op": "project_out", "value": ARTIFACT, "scale": 1}, "scale", "not taken by project_out"),
        ({"op": "project_out"}, "value", "must be a reference for project_out"),
        ({"op": "clamp", "value": ARTIFACT}, "scale", "required by clamp"),
        ({"op": "swap", "value": "clean.resid"}, "value", 'must be a run for swap; write {"run": name}'),
        ({"op": "swap", "value": {"run": "clean"}, "scale": 1}, "scale", "not taken by swap"),
        ({"op": "swap"}, "value", "must be a run for swap"),
        ({"op": "add", "value": True}, "value", "must be a number, a reference"),
        ({"op": "add", "value": [1]}, "value", "must be a number, a reference"),
        ({"op": "add", "value": float("nan")}, "value", "finite number"),
        ({"op": "add", "value": float("-inf")}, "value", "finite number"),
        ({"op": "add", "value": 1e39}, "value", "less than or equal"),
        ({"op": "add", "value": 10**400}, "value", ""),
        ({"op": "add", "value": 1, "scale": float("inf")}, "scale", "finite number"),
        ({"op": "multiply", "value": 1}, "op", "'set', 'add'"),
        ({"value": 1}, "op", "required"),
        ({"op": "zero", "when": "always"}, "when", "not permitted"),
    ],
    ids=str,
)
def test_a_write_is_refused(write, field, message):
    assert_refused(STEER, {"at": "mlp_act.0"} | write, (*STEER, field), message)


@pytest.mark.parametrize(
    ("path", "value", "below", "message"),
    [
        (("of",), {"loss": 1}, ("of",), "one of logit_diff, logprob, kl and dot"),
        (("of",), {"logit_diff": [1]}, ("of", "logit_diff"), "a list of two: the ids of two tokens"),
        (("of",), {"logit_diff": [1, 1]}, ("of", "logit_diff", 1), "always 0"),
        (("of",), {"logit_diff": [1, "b"]}, ("of", "logit_diff", 1), "valid integer"),
        (("of",), {"logprob": -1}, ("of", "logprob"), "equal to 0"),
        (("of",), {"logprob": 1, "pos": "last"}, ("of", "pos"), "valid integer"),
        (("of",), {"logprob": 1, "kl": "clean"}, ("of", "kl"), "not permitted"),
        (("of",), {"dot": [{"at": "z.*"}, ARTIFACT]}, ("of", "dot", 0, "at"), "a metric takes one"),
        (("of",), {"dot": [{"at": "z.1"}, "x"]}, ("of", "dot", 1), "is no reference"),
        (("of",), {"dot": [{"at": "z.1"}, 5]}, ("of", "dot", 1), "must be a reference"),
        (("wrt",), {}, ("wrt",), "at least 1"),
        (("wrt", "e"), {"at": "lm_head"}, ("wrt", "e", "at"), "no gradient; choose final_norm"),
        (("wrt", "e"), {"at": "attn_scores.1"}, ("wrt", "e", "at"), "choose attn_probs"),
        (("wrt", "e"), {"at": "resid_pre.*"}, ("wrt", "e", "at"), "an integrated gradient takes one"),
        (("mode",), "hessian", ("mode",), "'grad' or 'grad_x_input'"),
        (("mode",), {"integrate": 5}, ("mode",), "with grad_x_delta or integrated"),
        (("mode",), {"integrated": 65}, ("mode", "integrated"), "equal to 64"),
        (("mode",), {"integrated": 0}, ("mode", "integrated"), "equal to 1"),
    ],
)
def test_a_gradient_is_refused(path, value, below, message):
    assert_refused((*GRAD, *path), value, (*GRAD, *below), message)
