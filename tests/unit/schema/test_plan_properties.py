"""What holds for all plans: they survive JSON, and whatever is done to one, it is a plan or refused."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plan_strategies import plans, small_plan
from pydantic import ValidationError

from transom.schema.plan import Plan
from transom.schema.plans.graph import node_of

quickly = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def as_json(plan):
    return plan.model_dump_json(exclude_none=True, by_alias=True)


@quickly
@given(plans())
def test_a_plan_survives_json(content):
    plan = Plan.model_validate(content)
    assert Plan.model_validate_json(as_json(plan)) == plan
    assert Plan.model_validate(json.loads(as_json(plan))) == plan
    assert Plan.model_validate(plan.model_dump(exclude_none=True, by_alias=True)) == plan
    assert Plan.model_validate_json(json.dumps(content)) == plan


@quickly
@given(plans())
def test_nothing_comes_before_what_it_takes_values_of(content):
    plan = Plan.model_validate(content)
    steps = plan.steps()
    assert sorted(steps) == sorted([*plan.runs, *(f"derive.{name}" for name in plan.derive)])
    assert plan.order() == [step for step in steps if step in plan.runs]
    for node, use in plan.parts.uses:
        other = node_of(use)
        assert other is None or steps.index(other) < steps.index(node)


@quickly
@given(plans())
def test_references_stand_where_they_say(content):
    plan = Plan.model_validate(content)
    for _, use in plan.parts.uses:
        place = content
        for part in use.loc:
            place = place[part]
        assert isinstance(place, str | dict)


def places(value, path=()):
    """Every place in a JSON value, the whole first."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


JUNK = [
    None,
    True,
    False,
    0,
    -1,
    5,
    2**63,
    10**400,
    -(10**400),
    0.5,
    1e39,
    float("nan"),
    float("inf"),
    "",
    "x",
    "all",
    "{pos}",
    "{layer}",
    "../../etc/passwd",
    "clean.resid",
    "derive.change",
    "derive.derive",
    "artifact:" + "f" * 64,
    "artifact:" + "f" * 64 + "#../x",
    "resid_post.*",
    "resid_post.99999999999999999999",
    "\ud800",
    "\x00",
    "é" * 5000,
    [],
    {},
    [[]],
    [None],
    ["{head}"],
    [1, 1],
    [[1], [2, 3]],
    {"inline": []},
    {"inline": {"dtype": "float32", "shape": [2**31 - 1] * 8, "b64": "AAAA"}},
    {"run": "clean"},
    {"\ud800": 1},
    {"from": 3, "to": 2},
    {"phase": "generated"},
    {"unembed": {"topk": 1}},
]


def deep(levels):
    value = [1]
    for _ in range(levels):
        value = [value]
    return value


# The door refuses such text in JSON, for messages too, whose class is not a plan's own.
WRITABLE = [value for value in JUNK if value not in ("\ud800", {"\ud800": 1})]

junk = st.sampled_from([*WRITABLE, deep(9), deep(60)]) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


def mutated(content, draw):
    content = copy.deepcopy(content)
    place = draw(st.sampled_from(list(places(content))[1:]))
    holder = content
    for part in place[:-1]:
        holder = holder[part]
    match draw(st.sampled_from(["replace", "remove", "add", "move"])):
        case "remove":
            del holder[place[-1]]
        case "add" if isinstance(holder, dict):
            holder[draw(st.text(max_size=9) | st.sampled_from(sorted(FIELDS)))] = draw(junk)
        case "move":
            other = draw(st.sampled_from(list(places(content))))
            value = content
            for part in other:
                value = value[part]
            holder[place[-1]] = copy.deepcopy(value)
        case _:
            holder[place[-1]] = draw(junk)
    return content


FIELDS = {
    "op",
    "value",
    "scale",
    "head",
    "unit",
    "pos",
    "reduce",
    "grad",
    "sweep",
    "axis",
    "k",
    "seed",
    "read",
}


def checked(content):
    """The plan, or None where it is refused; anything else that is raised fails the test."""
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        told = [error.errors(), str(error)]
    assert all(told)
    return None


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.just(small_plan()) | plans(), st.data())
def test_a_plan_that_is_changed_at_random_is_a_plan_or_is_refused(content, data):
    for _ in range(data.draw(st.integers(1, 3))):
        content = mutated(content, data.draw)
    plan = checked(content)
    if plan is not None:
        assert Plan.model_validate_json(as_json(plan)) == plan


@pytest.mark.parametrize("value", JUNK, ids=lambda value: repr(value)[:30])
def test_junk_at_every_place_is_a_plan_or_is_refused(value):
    for place in list(places(small_plan())):
        content = small_plan()
        if not place:
            checked(value)
            continue
        holder = content
        for part in place[:-1]:
            holder = holder[part]
        holder[place[-1]] = value
        checked(content)
