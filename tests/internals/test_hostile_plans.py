"""Whatever is made of a plan, it is refused and the field is named, or it is answered; and it ends.

`TRANSOM_TEST_LONG=1` changes plans ten thousand times.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.internals.plans import Machine
from tests.internals.valid_plans import JUNK, PLANS, changed, places
from transom.errors import InvalidRequest
from transom.services.planning.sizes import MAX_BYTES

TIMES = 10_000 if os.environ.get("TRANSOM_TEST_LONG") == "1" else 2_000
MOST_SECONDS = 20.0


@pytest.fixture(scope="module")
def machine(tiny_root, tmp_path_factory) -> Machine:
    return Machine(tiny_root("llama"), tmp_path_factory.mktemp("spool"))


def end_of(machine, content):
    """What comes of a plan: the values, or the refusal."""
    before = machine.loaded.engine.stats()
    try:
        task = machine.prepare(content)
        assert task.sizes.kept <= MAX_BYTES
        found = machine.run(content)
    except InvalidRequest as refusal:
        found = refusal
    else:
        assert sum(array.nbytes for array in found.values()) <= task.sizes.returned
    assert machine.engine.idle
    assert not list(machine.spool.iterdir())
    after = machine.loaded.engine.stats()
    assert (after.running, after.waiting, after.pages_used) == (0, 0, 0), before
    return found


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_that_is_not_broken_is_answered(machine, name):
    found = machine.run(PLANS[name])
    assert found.keys() >= {ref for ref in PLANS[name]["return"] if f"{ref}.ids" not in found}
    for key, array in found.items():
        assert not np.isnan(array).any(), key


@st.composite
def broken(draw):
    content = PLANS[draw(st.sampled_from(sorted(PLANS)))]
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        path = draw(st.sampled_from(places(content)))
        how = draw(st.sampled_from(["junk", "junk", "junk", "other", "drop", "rename", "twice", "beside"]))
        junk = draw(st.sampled_from(JUNK))
        if how == "other":
            junk = content
            for part in draw(st.sampled_from(places(content))):
                junk = junk[part]
        content = changed(content, path, how, junk)
    return content


@pytest.mark.timeout(3600)
@settings(
    max_examples=TIMES,
    derandomize=True,
    database=None,
    deadline=1000 * MOST_SECONDS,
    suppress_health_check=list(HealthCheck),
)
@given(content=broken())
def test_a_changed_plan_is_answered_or_refused_by_name(machine, content):
    found = end_of(machine, content)
    if isinstance(found, InvalidRequest):
        assert 0 < len(found.message) < 1000
        assert found.param is not None or not isinstance(content, dict), found.message
    else:
        for name, array in found.items():
            assert not np.isnan(array).any() or _may_be_nan(content), name


def _may_be_nan(content):
    """Whether infinite scores, or numbers too large for float32, were computed with."""
    return bool(content.get("derive")) or "scores" in str(content) or "project" in str(content)
