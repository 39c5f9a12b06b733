"""How tests break a plan at one place, and see that it is refused there and nowhere else."""

from __future__ import annotations

import pytest
from plan_strategies import small_plan
from pydantic import ValidationError

from transom.schema.plan import Plan


def changed(path, value):
    """The small plan with `value` at `path`; without what stands there, if it is `...`."""
    content = small_plan()
    *way, last = path
    holder = content
    for part in way:
        holder = holder[part]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    return content


def findings(content):
    with pytest.raises(ValidationError) as refused:
        Plan.model_validate(content)
    return refused.value.errors(include_url=False)


def assert_refused(path, value, loc, message):
    (error,) = findings(changed(path, value))
    assert error["loc"] == loc
    assert message in error["msg"]
    assert len(error["msg"]) < 300


READ = ("runs", "clean", "read", "resid")
LENS = ("runs", "clean", "read", "lens")
ZERO = ("runs", "patched", "write", 2)
STEER = ("runs", "patched", "write", 3)
GRAD = ("runs", "slope", "grad")
