"""Names of sites: what is no point is refused with what to write instead, and aliases mean the very same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.schema.points import (
    NEARLY,
    NNTERP,
    POINTS,
    TRANSFORMER_LENS_BLOCK,
    TRANSFORMER_LENS_GLOBAL,
    PointRefused,
    parse_site_name,
)


@pytest.mark.parametrize(
    ("at", "remedy"),
    [
        ("", "the points are embeddings"),
        ("resid_pst.3", "resid_post"),
        ("residpre.3", "resid_pre"),
        ("mlp_outpost.1", "mlp_out_post"),
        ("v.3", "the points are"),
        ("blocks.3.hook_reesid_post", "blocks.N.hook_resid_post"),
        ("blocks.3.attn.hook_patern", "blocks.N.attn.hook_pattern"),
        ("layer_output[3]", "layers_output"),
        ("RESID_POST.3", "is no point"),
        (" resid_post.3", "is no point"),
        ("model.layers.3.norm", "is no point"),
        ("../../etc/passwd", "is no point"),
        ("resid_post", "resid_post.5"),
        ("resid_post.", "is no layer"),
        ("resid_post.-1", "is no layer"),
        ("resid_post.05", "is no layer"),
        ("resid_post.10000", "is no layer"),
        ("resid_post." + "9" * 100, "is no layer"),
        ("resid_post.٣", "is no layer"),
        ("resid_post.3\n", "is no layer"),
        ("resid_post.3.4", "is no layer"),
        ("resid_post.3-", "is no layer"),
        ("resid_post.{pos}", "is no layer"),
        ("resid_post.7-3", "resid_post.3-7"),
        ("final_norm.3", "write final_norm"),
        ("lm_head.*", "write lm_head"),
        ("blocks.x.hook_resid_pre", "is no layer"),
    ],
)
def test_what_is_no_site_is_refused_with_a_remedy(at, remedy):
    with pytest.raises(PointRefused, match=re.escape(remedy)) as refused:
        parse_site_name(at)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("name", NEARLY)
def test_what_is_nearly_a_point_is_refused_with_the_reason_and_points_to_use(name):
    at = name if name.startswith(("ln_final", "hook_pos")) else f"blocks.3.{name}"
    with pytest.raises(PointRefused, match=r"use \w+|holds the sum") as refused:
        parse_site_name(at)
    assert any(point in str(refused.value) for point in POINTS)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("at", "canonical"),
    [
        ("blocks.5.hook_resid_pre", "resid_pre.5"),
        ("blocks.5.hook_resid_mid", "resid_mid.5"),
        ("blocks.5.hook_resid_post", "resid_post.5"),
        ("blocks.5.attn.hook_q", "q.5"),
        ("blocks.5.attn.hook_k", "k.5"),
        ("blocks.5.attn.hook_v", "value.5"),
        ("blocks.5.attn.hook_z", "z.5"),
        ("blocks.5.attn.hook_pattern", "attn_probs.5"),
        ("blocks.5.attn.hook_attn_scores", "attn_scores.5"),
        ("blocks.5.attn.hook_rot_q", "q_rot.5"),
        ("blocks.5.mlp.hook_pre", "mlp_pre.5"),
        ("blocks.5.mlp.hook_pre_linear", "mlp_pre_linear.5"),
        ("blocks.5.mlp.hook_post", "mlp_act.5"),
        # What a block adds to the residual stream, and what its module gives.
        ("blocks.5.hook_attn_out", "attn_out_post.5"),
        ("blocks.5.hook_mlp_out", "mlp_out_post.5"),
        ("blocks.5.attn.hook_out", "attn_out.5"),
        ("blocks.5.mlp.hook_out", "mlp_out.5"),
        ("hook_embed", "embeddings"),
        ("unembed.hook_in", "final_norm"),
        ("blocks.*.hook_resid_post", "resid_post.*"),
        ("blocks.3-7.hook_resid_post", "resid_post.3-7"),
        ("blocks.{layer}.hook_resid_post", "resid_post.{layer}"),
        ("model.layers.5.output", "resid_post.5"),
        ("model.layers.5", "resid_post.5"),
        ("model.layers.5.input", "resid_pre.5"),
        ("model.layers.*.mlp.input", "mlp_in.*"),
        ("model.layers.3-7.self_attn.o_proj.input", "z.3-7"),
        ("transformer.h.{layer}.mlp.c_proj.input", "mlp_act.{layer}"),
        ("lm_head.output", "lm_head"),
        ("model.norm", "final_norm"),
        ("layers_output[5]", "resid_post.5"),
        ("attentions_output[5]", "attn_out.5"),
    ],
)
def test_an_alias_means_the_point_of_the_same_value(at, canonical):
    assert parse_site_name(at).canonical == canonical


@pytest.mark.parametrize(
    ("text", "layers"),
    [("0", 0), ("9999", 9999), ("*", "all"), ("0-0", (0, 0)), ("3-17", (3, 17)), ("{layer}", "{layer}")],
)
@pytest.mark.parametrize("name", [name for name, point in POINTS.items() if point.layered])
def test_a_layered_point_takes_layers(name, text, layers):
    found = parse_site_name(f"{name}.{text}")
    assert found == (name, layers)
    assert found.canonical == f"{name}.{text}"


@pytest.mark.parametrize("name", [name for name, point in POINTS.items() if not point.layered])
def test_a_global_point_takes_no_layer(name):
    assert parse_site_name(name) == (name, None)
    assert parse_site_name(name).canonical == name


@given(st.text(max_size=20) | st.from_regex(r"(blocks\.)?[a-z_]{1,9}(\.[0-9*{}a-z-]{0,5}){0,2}"))
def test_any_text_is_a_site_or_is_refused(at):
    try:
        found = parse_site_name(at)
    except PointRefused:
        return
    assert parse_site_name(found.canonical) == found


@pytest.mark.parametrize(
    "path",
    ["model.layers.5.post_attention_layernorm.output", "model.layers.5.nothing", "model.layers", "model"],
)
def test_a_module_whose_name_says_no_point_is_refused(path):
    with pytest.raises(PointRefused, match="is no point"):
        parse_site_name(path)


def test_aliases_lead_to_points_and_no_alias_is_one():
    aliases = TRANSFORMER_LENS_BLOCK | TRANSFORMER_LENS_GLOBAL | NNTERP
    assert set(aliases.values()) <= set(POINTS)
    assert not set(aliases) & set(POINTS)
    assert not set(aliases) & set(NEARLY)


def test_keys_have_heads_and_what_is_read_only_has_no_gradient():
    read_only = {name for name, point in POINTS.items() if not point.writable}
    assert read_only == {"k_rot", "attn_scores", "lm_head"}
    for point in POINTS.values():
        assert point.readable
        assert point.differentiable is point.writable
        assert point.has_heads is (point.width in {"heads*dim", "kv_heads*dim", "keys"})
