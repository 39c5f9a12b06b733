"""Answers of another engine profile are within what honest ones showed, or outside."""

from __future__ import annotations

from functools import partial

import pytest

from tests.http.test_records import stored
from transom.schema.calibrations import LEAST_TOKENS, measured
from transom.schema.deployment import Deployment, ServedModel
from transom.services.evidence.calibrations import accept
from transom.tlog.documents import log_document

pytestmark = pytest.mark.anyio

ASKED = {"max_tokens": 40, "ignore_eos": True, "temperature": 1.0, "seed": 3}


async def move(door):
    """Serve the model on another profile from now on; both deployments."""
    served = door.backend.served
    before = served.deployment
    profile = before.profile.model_copy(update={"dtype": "bfloat16"})
    after = Deployment(model=before.model, profile=profile, policy=before.policy)
    door.backend.served = ServedModel(name=served.name, deployment=after, created=served.created)
    note = partial(log_document, kind="deployment", content=after.document)
    await door.house.office.database.write(note)
    return before, after


async def calibrated(door, before, after):
    """A calibration in which nothing ever differed."""
    answers = [[(0.0, 0.0)] * 100] * (LEAST_TOKENS // 100)
    made = "2026-11-28T12:00:00.000000Z"
    calibration = measured(before.digest, after.digest, answers, 0, made)
    accept(door.house.office.database, calibration.content)


async def test_without_a_calibration_another_profile_replays_nothing(own_door):
    answer = await own_door.complete(**ASKED)
    await move(own_door)
    report = await own_door.replay(answer["id"])
    assert (report["level"], report["reason"]) == ("UNREPLAYABLE", "DEPLOYMENT")


async def test_an_honest_answer_of_another_profile_is_within(own_door):
    answer = await own_door.complete(**ASKED)
    await calibrated(own_door, *await move(own_door))
    report = await own_door.replay(answer["id"])
    assert (report["level"], report["reason"], report["tokens"]) == ("WITHIN", None, 40)
    # What answers now is judged to the bit.
    assert (await own_door.replay((await own_door.complete(**ASKED))["id"]))["level"] == "EXACT"


@pytest.mark.parametrize(
    ("knob", "level", "reason"), [("lie_at", "OUTSIDE", "MARGIN"), ("shade_at", "WITHIN", None)]
)
async def test_other_tokens_are_outside_and_a_logprob_that_is_off_by_a_bit_is_not(
    own_door, knob, level, reason
):
    answer = await own_door.complete(**ASKED)
    await calibrated(own_door, *await move(own_door))
    setattr(own_door.backend.knobs, knob, 0)
    report = await own_door.replay(answer["id"])
    assert (report["level"], report["reason"]) == (level, reason)


async def test_the_profiles_are_calibrated_one_way(own_door):
    before, after = await move(own_door)
    await calibrated(own_door, before, after)
    answer = await own_door.complete(**ASKED)
    served = own_door.backend.served
    own_door.backend.served = ServedModel(name=served.name, deployment=before, created=served.created)
    report = await own_door.replay(answer["id"])
    assert (report["level"], report["reason"]) == ("UNREPLAYABLE", "DEPLOYMENT")


async def test_what_has_no_generated_tokens_was_never_calibrated(own_door):
    answer = await own_door.complete(max_tokens=0, echo=True, logprobs=1)
    assert (await stored(own_door, answer["id"])).status == "complete"
    await calibrated(own_door, *await move(own_door))
    report = await own_door.replay(answer["id"])
    assert (report["level"], report["reason"]) == ("UNREPLAYABLE", "DEPLOYMENT")
