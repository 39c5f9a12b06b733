"""A record that says that something else was asked than its body asks for is found, whatever was answered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.http.door import HELLO

pytestmark = pytest.mark.anyio

ASKED = {"max_tokens": 6, "ignore_eos": True, "temperature": 1.0, "seed": 3}


async def forged(door, monkeypatch, change, kind="chat"):
    """Replay an answer of which another record was made."""
    plain = door.house.records.append

    async def append(answer, beside=None):
        return await plain(change(answer), beside)

    monkeypatch.setattr(door.house.records, "append", append)
    answer = await getattr(door, kind)(**ASKED)
    report = await door.replay(answer["id"])
    return report["level"], report["reason"]


def with_sampling(**changes):
    return lambda answer: replace(answer, sampling=replace(answer.sampling, **changes))


def another_choice(answer):
    ((prompt, _, result),) = answer.sequences
    return replace(answer, sequences=[(prompt, 5, result)])


def broken_off(answer):
    ((_, _, result),) = answer.sequences
    result.finish_reason = None
    return answer


LIES = {
    "temperature": (with_sampling(temperature=0.5), "REQUEST"),
    "top_p": (with_sampling(top_p=0.5), "REQUEST"),
    "max_tokens": (with_sampling(max_tokens=7), "REQUEST"),
    "stop": (with_sampling(stop=("x",)), "REQUEST"),
    "seed": (with_sampling(seed=4), "SEED"),
    "source": (lambda answer: replace(answer, seed_source="server"), "SEED"),
    "messages": (lambda answer: replace(answer, messages=[*HELLO, *HELLO]), "REQUEST"),
    "prompt": (lambda answer: replace(answer, prompts=[answer.prompts[0][:-1]]), "RENDER"),
    "n": (lambda answer: replace(answer, n=2), "REQUEST"),
    "choice": (another_choice, "REQUEST"),
    "none": (lambda answer: replace(answer, sequences=[]), "REQUEST"),
    "ending": (broken_off, "ENDING"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_what_was_asked_is_derived_from_the_body(own_door, monkeypatch, lie):
    change, reason = LIES[lie]
    assert await forged(own_door, monkeypatch, change) == ("OUTSIDE", reason)


@pytest.mark.parametrize("kind", ["chat", "complete"])
async def test_the_same_record_without_a_lie_is_exact(own_door, monkeypatch, kind):
    assert await forged(own_door, monkeypatch, lambda answer: answer, kind) == ("EXACT", None)
