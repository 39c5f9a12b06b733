"""What is told of the whole vocabulary: measures and distributions, refused, charged, answered, on record."""

from __future__ import annotations

import base64
from hashlib import sha256

import numpy as np
import pytest

from tests.http.door import HELLO, MODEL, chunks_of, open_door
from tests.http.grants import PROGRAMME, holder
from tests.http.test_metering import rows

pytestmark = pytest.mark.anyio

ALL = {"entropy": True, "rank": True, "surprisal": True, "kl": True, "top_k_mass": 3}
PROMPT = [5, 6, 7, 8]


@pytest.fixture
async def door(tokenizer, tmp_path):
    (tmp_path / "programme.toml").write_text(PROGRAMME)
    async with open_door(tmp_path, tokenizer) as door:
        yield door


def numbers(told) -> np.ndarray:
    """A distribution as it came."""
    assert told["dtype"] == "float32"
    vector = np.frombuffer(base64.b64decode(told["b64"], validate=True), "<f4")
    assert told["shape"] == [len(vector)]
    return vector


REFUSED = [
    ({"measures": {}}, "measures", "entropy, rank"),
    ({"measures": {"entropy": False}}, "measures", "name one"),
    ({"measures": True}, "measures", "measures: must be a JSON object; send one"),
    ({"prompt_measures": ["rank"]}, "prompt_measures", "prompt_measures: must be a JSON object; send one"),
    ({"measures": {"perplexity": True}}, "measures.perplexity", "not a parameter"),
    ({"measures": {"top_k_mass": 0}}, "measures.top_k_mass", "greater than or equal to 1"),
    ({"measures": {"top_k_mass": 10**6}}, "measures.top_k_mass", "vocabulary has"),
    ({"prompt_measures": {"kl": True}}, "prompt_measures.kl", "not drawn"),
    ({"prompt_measures": {"top_k_mass": 10**6}}, "prompt_measures.top_k_mass", "vocabulary has"),
    ({"distributions": [-1]}, "distributions.0", "greater than or equal to 0"),
    ({"distributions": 3}, "distributions", "list"),
    ({"distributions": [1, 0, 1]}, "distributions", "names 1 twice"),
    ({"distributions": [0, 2]}, "distributions", "beyond the 2 tokens"),
    ({"prompt_distributions": [0, 1]}, "prompt_distributions", "Nothing predicts the first"),
    ({"prompt_distributions": [4]}, "prompt_distributions", "beyond the prompt's 4 tokens"),
    ({"prompt_distributions": [1], "prompt": [[5], [5, 6]]}, "prompt_distributions", "1 tokens"),
    ({"distributions": [0], "best_of": 2}, "best_of", "ask for n"),
    ({"distributions": [0], "max_tokens": 0}, "distributions", "beyond the 0 tokens"),
]


@pytest.mark.parametrize(("asked", "param", "words"), REFUSED, ids=lambda part: str(part)[:40])
async def test_what_cannot_be_told_whole_is_refused_by_name(own_door, asked, param, words):
    body = {"model": MODEL, "prompt": PROMPT, "max_tokens": 2} | asked
    reply = await own_door.post("/v1/completions", body)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["param"] == param
    assert words in error["message"]


async def test_more_than_fits_one_answer_is_refused_with_how_many_do(own_door, monkeypatch):
    from transom.services.planning import wholes

    monkeypatch.setattr(wholes, "MAX_BYTES", 4 * own_door.backend.tokenizer.vocab_size * 5)
    body = {"model": MODEL, "prompt": PROMPT, "max_tokens": 3, "distributions": [0, 1, 2]}
    assert (await own_door.post("/v1/completions", body)).status_code == 200
    error = (await own_door.post("/v1/completions", body | {"n": 2})).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "distributions")
    assert "5 do" in error["message"]


async def test_whole_distributions_need_their_own_scope(door):
    someone = await holder(door, "wide")
    for asked in ({"distributions": [0]}, {"prompt_distributions": [1]}):
        reply = await someone.ask(**asked)
        assert reply.status_code == 403
        error = reply.json()["error"]
        assert error["code"] == "insufficient_scope"
        assert "model:distributions" in error["message"]
        assert "vectors" in error["message"]
    narrow = await (await holder(door, "vectors")).another_key(scopes=["model:sample"])
    assert (await narrow.ask(measures={"entropy": True})).status_code == 403
    assert (await narrow.ask(prompt_measures={"entropy": True})).status_code == 403
    assert (await narrow.ask(distributions=[0])).status_code == 403


async def test_measures_stand_beside_each_generated_token(own_door):
    answer = await own_door.complete(prompt=PROMPT, max_tokens=3, ignore_eos=True, measures=ALL, logprobs=0)
    (choice,) = answer["choices"]
    told = choice["measures"]
    assert [list(each) for each in told] == [
        ["token", "token_id", "entropy", "rank", "surprisal", "kl", "top_k_mass"]
    ] * 3
    assert [each["token"] for each in told] == choice["logprobs"]["tokens"]
    assert [-each["surprisal"] for each in told] == choice["logprobs"]["token_logprobs"]
    assert "prompt_measures" not in choice
    assert "distributions" not in choice


async def test_measures_of_a_prompt_begin_with_null(own_door):
    asked = {"entropy": True, "rank": True}
    answer = await own_door.complete(prompt=PROMPT, max_tokens=0, prompt_measures=asked)
    told = answer["choices"][0]["prompt_measures"]
    assert told[0] is None
    assert [each["token_id"] for each in told[1:]] == PROMPT[1:]
    assert set(told[1]) == {"token", "token_id", "entropy", "rank"}
    assert answer["choices"][0].get("prompt_logprobs") is None


async def test_a_distribution_is_the_row_that_logprobs_are_numbers_of(own_door):
    answer = await own_door.complete(
        prompt=PROMPT,
        max_tokens=3,
        ignore_eos=True,
        distributions=[2, 0],
        prompt_distributions=[3],
        logprobs=2,
        prompt_logprobs=0,
        return_token_ids=True,
    )
    (choice,) = answer["choices"]
    assert [each["position"] for each in choice["distributions"]] == [0, 2]
    for told in choice["distributions"]:
        vector, position = numbers(told), told["position"]
        assert len(vector) == own_door.backend.tokenizer.vocab_size
        token = choice["token_ids"][position]
        assert float(vector[token]) == choice["logprobs"]["token_logprobs"][position]
    (told,) = choice["prompt_distributions"]
    assert told["position"] == 3
    assert float(numbers(told)[8]) == choice["prompt_logprobs"][3]["8"]["logprob"]


async def test_a_distribution_of_a_token_that_was_not_generated_is_not_there_and_not_charged(door):
    someone = await holder(door, "vectors")
    reply = await someone.ask(max_tokens=9, logit_bias={"2": 100}, distributions=[0, 5])
    (choice,) = reply.json()["choices"]
    assert choice["finish_reason"] == "stop"
    assert [each["position"] for each in choice["distributions"]] == [0]
    assert [row["released_rank"] for row in await rows(door)] == [1e6]


@pytest.mark.parametrize("stride", [1, 3])
async def test_a_stream_tells_the_same_as_a_whole_answer(own_door, stride):
    own_door.backend.knobs.stride = stride
    asked = {
        "max_tokens": 7,
        "seed": 4,
        "n": 2,
        "measures": ALL,
        "prompt_measures": {"entropy": True},
        "distributions": [0, 4, 6],
        "prompt_distributions": [1],
    }
    for path, more in (
        ("/v1/completions", {"prompt": PROMPT}),
        ("/v1/chat/completions", {"messages": HELLO}),
    ):
        whole = (await own_door.post(path, {"model": MODEL} | asked | more)).json()
        chunks = chunks_of(await own_door.stream(path, **asked, **more))
        for choice in whole["choices"]:
            pieces = [
                each for chunk in chunks for each in chunk["choices"] if each["index"] == choice["index"]
            ]
            for name in ("measures", "distributions"):
                assert [each for piece in pieces for each in piece.get(name) or ()] == choice[name]
        first = [chunk for chunk in chunks if "prompt_measures" in (chunk | chunk["choices"][0])]
        of_prompt = whole if "messages" in more else whole["choices"][0]
        for name in ("prompt_measures", "prompt_distributions"):
            assert (first[0] | first[0]["choices"][0])[name] == of_prompt[name]


async def test_the_record_binds_each_vector_by_its_digest_and_does_not_keep_it(own_door):
    answer = await own_door.complete(
        prompt=PROMPT, max_tokens=3, ignore_eos=True, distributions=[1], measures=ALL
    )
    record = await own_door.record(answer["id"])
    (opened,) = record["openings"]["sequences"]
    (told,) = answer["choices"][0]["distributions"]
    digest = "sha256:" + sha256(base64.b64decode(told["b64"])).hexdigest()
    assert opened["distributions"] == [[1, digest]]
    named = answer["choices"][0]["measures"]
    assert opened["measures"] == [[each[name] for name in ALL] for each in named]
    (evidence,) = record["statement"]["predicate"]["evidence"]
    assert evidence["measures"] is not None
    assert evidence["distributions"] is not None
    assert evidence["prompt_measures"] is evidence["prompt_distributions"] is None


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"prompt_measures": {"entropy": True}}, "PROMPT MEASURES"),
        ({"prompt_distributions": [2]}, "PROMPT DISTRIBUTIONS"),
    ],
    ids=str,
)
async def test_a_bit_of_the_prompt_that_differs_is_found(own_door, asked, reason):
    answer = await own_door.complete(prompt=PROMPT, max_tokens=0, **asked)
    own_door.backend.knobs.shade_at = 2
    report = await own_door.replay(answer["id"])
    assert (report["level"], report["reason"]) == ("OUTSIDE", reason)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [({"measures": {"entropy": True}}, "MEASURES"), ({"distributions": [1]}, "DISTRIBUTIONS")],
    ids=str,
)
async def test_a_row_that_differs_elsewhere_than_at_its_token_is_found(own_door, monkeypatch, asked, reason):
    answer = await own_door.complete(prompt=PROMPT, max_tokens=3, ignore_eos=True, temperature=0, **asked)
    honest = own_door.backend._logprobs

    def otherwise(ids, changes=None):
        row = honest(ids, changes)
        row[int(row.argmin())] -= 1
        return row

    monkeypatch.setattr(own_door.backend, "_logprobs", otherwise)
    report = await own_door.replay(answer["id"])
    assert (report["level"], report["reason"]) == ("OUTSIDE", reason)


async def released(door, tier: str, **asked) -> int:
    """Millionths of vectors that one request is charged."""
    before = len(await rows(door))
    someone = await holder(door, tier)
    reply = await someone.ask(**{"prompt": PROMPT, "max_tokens": 4, "ignore_eos": True} | asked)
    assert reply.status_code == 200, reply.text
    (row,) = (await rows(door))[before:]
    return row["released_rank"]


async def test_measures_that_say_nothing_about_a_direction_are_free(door):
    free = {"entropy": True, "rank": True}
    assert await released(door, "wide", measures=free, prompt_measures=free) == 0
    assert await released(door, "wide", measures=free, logit_bias={"5": 1}) == 0


async def test_others_cost_the_number_that_each_is(door):
    number = 1e6 / door.backend.tokenizer.vocab_size
    for asked, count in [
        ({"measures": {"surprisal": True}}, 4),
        ({"measures": {"top_k_mass": 3}}, 4),
        ({"measures": {"kl": True}}, 4),
        ({"measures": ALL}, 12),
        ({"measures": ALL, "logprobs": 2}, 20),
        ({"prompt_measures": {"surprisal": True, "top_k_mass": 1}}, 8),
        ({"prompt_measures": {"surprisal": True}, "prompt_logprobs": 1}, 8),
    ]:
        assert await released(door, "wide", **asked) == -int(-number * count // 1), asked


@pytest.mark.parametrize("asked", [{"surprisal": True}, {"kl": True}], ids=str)
async def test_a_bias_makes_a_vector_of_what_it_decides(door, asked):
    assert await released(door, "wide", measures=asked, logit_bias={"5": 1}) == 4e6


async def test_a_bias_makes_nothing_of_what_is_scored_free(door):
    """A bias that decides nothing, since nothing is drawn, is no discount on the prompt's logprobs."""
    asked = {"max_tokens": 0, "echo": True, "logprobs": 3}
    plain = await released(door, "wide", **asked)
    assert plain > 0
    assert await released(door, "wide", logit_bias={"5": 1}, **asked) == plain


async def test_each_distribution_costs_a_vector(door):
    assert await released(door, "vectors", distributions=[0, 2]) == 2e6
    assert await released(door, "vectors", distributions=[0], n=3) == 3e6
    assert await released(door, "vectors", prompt_distributions=[1, 2], n=2, max_tokens=1) == 2e6


@pytest.mark.parametrize("asked", [{"distributions": [0]}, {"prompt_distributions": [1]}], ids=str)
async def test_vectors_of_an_answer_that_never_began_cost_nothing(door, asked):
    someone = await holder(door, "vectors")
    door.backend.knobs.crash_after = 0
    assert (await someone.ask(prompt=PROMPT, **asked)).status_code == 500
    (row,) = await rows(door)
    assert (row["released_rank"], row["outcome"]) == (0, "settled")


async def test_a_replay_releases_no_vector_and_needs_no_scope_for_one(door):
    someone = await holder(door, "vectors")
    record = (await someone.ask(distributions=[0], measures=ALL)).headers["x-transom-record"]
    narrow = await someone.another_key(scopes=["model:sample", "records:replay"])
    headers = {"authorization": f"Bearer {narrow.key}"}
    report = (await door.client.post(f"/v1/records/{record}/replay", headers=headers)).json()
    assert report["level"] == "EXACT"
    assert [row["released_rank"] > 0 for row in await rows(door)] == [True, False]
