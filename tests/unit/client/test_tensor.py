"""Tensors with named axes: places, labels, arithmetic, numpy, and charts."""

from __future__ import annotations

import json
import sys

import altair as alt
import numpy as np
import pytest

from transom.client import Tensor, Traced

DATA = np.arange(6, dtype=np.float32).reshape(2, 3)
TENSOR = Tensor(DATA, ("layer", "pos")).named(pos=["The", " cat", " sat"])


def test_numpy_takes_it_for_an_array():
    np.testing.assert_array_equal(np.asarray(TENSOR), DATA)
    np.testing.assert_array_equal(np.abs(TENSOR), DATA)
    np.testing.assert_array_equal(DATA - TENSOR, np.zeros_like(DATA))
    assert np.asarray(TENSOR, np.float64).dtype == np.float64
    assert np.corrcoef(np.ravel(TENSOR), DATA.ravel())[0, 1] == pytest.approx(1)


def test_a_place_takes_its_axis_away_and_a_slice_shortens_it():
    row = TENSOR.at(layer=1)
    assert (row.axes, row.labels["pos"]) == (("pos",), ("The", " cat", " sat"))
    part = TENSOR.at(pos=slice(1, None))
    assert (part.shape, part.labels["pos"]) == ((2, 2), (" cat", " sat"))
    assert float(TENSOR.at(layer=-1, pos=-1)) == 5
    assert int(TENSOR.at(layer=0, pos=1)) == 1


def test_reductions_go_by_name():
    np.testing.assert_array_equal(TENSOR.sum("pos"), DATA.sum(1))
    np.testing.assert_array_equal(TENSOR.mean("layer"), DATA.mean(0))
    np.testing.assert_allclose(TENSOR.norm("pos"), np.linalg.norm(DATA, axis=1))
    assert float(TENSOR.sum()) == 15
    assert TENSOR.mean("layer").labels == {"pos": ("The", " cat", " sat")}


def test_arithmetic_goes_by_name():
    found = TENSOR - TENSOR.at(layer=0)
    np.testing.assert_array_equal(found, DATA - DATA[0])
    np.testing.assert_array_equal(TENSOR - TENSOR.at(pos=0), DATA - DATA[:, :1])
    np.testing.assert_array_equal(2 * (1 + TENSOR) / 2, DATA + 1)
    np.testing.assert_array_equal(1 - TENSOR, 1 - DATA)
    with pytest.raises(ValueError, match="not among"):
        TENSOR.transposed("pos", "layer") - TENSOR


def test_other_names_and_another_order_keep_the_labels():
    turned = TENSOR.renamed(pos="query").transposed("query", "layer")
    assert (turned.axes, turned.shape) == (("query", "layer"), (3, 2))
    assert turned.labels == {"query": ("The", " cat", " sat")}


@pytest.mark.parametrize(
    "call", [lambda t: t.at(head=1), lambda t: t.sum("head"), lambda t: t.named(head=[])]
)
def test_an_axis_that_is_not_there_is_named(call):
    with pytest.raises(KeyError, match="no axis head; there are layer, pos"):
        call(TENSOR)


def test_labels_are_as_many_as_places():
    with pytest.raises(ValueError, match="2 labels for the 3 of pos"):
        TENSOR.named(pos=["a", "b"])


def test_a_value_is_found_by_the_end_of_its_name_where_only_one_ends_so():
    found = Traced("rec_1", {"a.x": TENSOR, "a.y": TENSOR, "b.y": TENSOR}, b"")
    assert found["x"] is found["a.x"]
    with pytest.raises(KeyError, match=r"y names several of a\.x, a\.y, b\.y"):
        found["y"]
    with pytest.raises(KeyError, match="z names none"):
        found["z"]


def test_two_axes_are_a_heat_map_with_the_tokens_below():
    chart = TENSOR.plot("Patching")
    assert isinstance(chart, alt.Chart)
    made = chart.to_dict()
    assert made["mark"] == {"type": "rect"} or made["mark"] == "rect"
    assert made["encoding"]["x"]["axis"]["labelExpr"] == "['The',' cat',' sat'][datum.value]"
    assert "labelExpr" not in made["encoding"]["y"]["axis"]
    assert made["title"] == "Patching"
    assert "<html" in chart.to_html()


def test_one_axis_is_a_line_and_axes_of_one_place_do_not_count():
    made = Tensor(DATA[:1], ("layer", "pos")).plot().to_dict()
    assert (made["mark"]["type"], made["encoding"]["x"]["field"]) == ("line", "pos")


def test_more_axes_are_to_be_chosen_from():
    cube = Tensor(np.ones((2, 3, 4)), ("layer", "head", "pos"))
    with pytest.raises(ValueError, match=r"layer, head, pos; choose places with at\(\)"):
        cube.plot()


def test_a_token_that_would_break_the_charts_language_is_spelled_out():
    labels = ["'", "\\", "\n\U0001f600"]
    made = TENSOR.named(pos=labels).plot().to_dict()
    assert made["encoding"]["x"]["axis"]["labelExpr"] == (
        "['\\u0027','\\u005c','\\u000a\U0001f600'][datum.value]"
    )


def test_what_is_no_number_is_an_empty_cell():
    made = Tensor(np.array([[1, np.inf], [np.nan, -1]]), ("layer", "pos")).plot().to_dict()
    json.dumps(made, allow_nan=False)


def test_without_altair_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'transom\[plot\]'"):
        TENSOR.plot()
