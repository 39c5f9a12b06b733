"""`/v1/completions`, as the clients out there read it."""

from __future__ import annotations

import pytest

from tests.http.door import MODEL

pytestmark = pytest.mark.anyio

EOS = 2
ALWAYS_EOS = {"logit_bias": {str(EOS): 100}, "temperature": 0}
IDS = [1, 40, 41, 300, 2, 50]
"""A prompt with special tokens in the middle."""


async def choice(door, **body):
    answer = await door.complete(**{"seed": 7, "max_tokens": 12} | body)
    assert len(answer["choices"]) == 1
    return answer["choices"][0]


async def test_an_engine_that_fails_is_a_500_with_the_record_in_the_header(own_door):
    own_door.backend.knobs.fail_after = 3
    reply = await own_door.post("/v1/completions", {"model": MODEL, "prompt": "hi"})
    assert reply.status_code == 500
    error = reply.json()["error"]
    assert (error["code"], error["layer"]) == ("generation_failed", "engine")
    record = await own_door.record(reply.headers["x-transom-record"])
    assert record["status"] == "failed"


@pytest.mark.parametrize("knob", ["crash_after", "vanish_after"])
async def test_an_engine_that_breaks_its_promise_is_a_500_and_no_endless_wait(own_door, knob):
    setattr(own_door.backend.knobs, knob, 3)
    reply = await own_door.post("/v1/completions", {"model": MODEL, "prompt": ["hi", "ho"], "n": 2})
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "generation_failed"
    assert "ZeroDivision" not in reply.text
    assert (await own_door.record(reply.headers["x-transom-record"]))["status"] == "failed"


async def test_an_engine_that_is_not_there_is_a_503_with_retry_after(own_door):
    own_door.backend.knobs.unavailable = True
    reply = await own_door.post("/v1/completions", {"model": MODEL, "prompt": "hi"})
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "7"
    assert reply.json()["error"]["code"] == "engine_unavailable"


async def test_one_sequence_that_fails_ends_its_mates(own_door):
    own_door.backend.knobs.fail_after, own_door.backend.knobs.choice = 5, 2
    reply = await own_door.post("/v1/completions", {"model": MODEL, "prompt": "hi", "n": 4})
    assert reply.status_code == 500
    names = [request.sequence_id for request in own_door.backend.taken]
    assert sorted(own_door.backend.aborted) == [names[0], names[1], names[3]]


async def test_a_record_that_cannot_be_kept_is_no_answer(own_door, monkeypatch):
    from transom.errors import StorageError

    async def append(answer, beside=None):
        raise StorageError("The disk is full.")

    monkeypatch.setattr(own_door.house.records, "append", append)
    reply = await own_door.post("/v1/completions", {"model": MODEL, "prompt": "hi"})
    assert reply.status_code == 500
    assert "x-transom-record" not in reply.headers
    error = reply.json()["error"]
    assert (error["code"], error["layer"]) == ("storage_error", "records")


FORMS = {
    "text": ("The light", 1),
    "texts": (["The light", "A door", "x"], 3),
    "ids": (IDS, 1),
    "lists of ids": ([IDS, [5]], 2),
}


@pytest.mark.parametrize(("prompt", "count"), FORMS.values(), ids=FORMS.keys())
async def test_each_form_of_a_prompt_is_answered_in_its_order(door, prompt, count):
    answer = await door.complete(prompt=prompt, max_tokens=4, temperature=0, seed=1)
    assert [each["index"] for each in answer["choices"]] == list(range(count))
    items = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    for item, each in zip(items, answer["choices"], strict=True):
        alone = await choice(door, prompt=item, max_tokens=4, temperature=0, seed=1)
        assert alone["text"] == each["text"]


@pytest.mark.parametrize("add_special_tokens", [True, False, None])
async def test_token_ids_are_taken_as_they_are(own_door, add_special_tokens):
    await own_door.complete(prompt=[IDS], max_tokens=1, add_special_tokens=add_special_tokens)
    assert own_door.backend.taken[0].prompt_token_ids == tuple(IDS)


@pytest.mark.parametrize(("asked", "bos"), [(None, [1]), (True, [1]), (False, [])])
async def test_text_gets_what_the_tokenizer_adds_unless_that_is_declined(door, asked, bos):
    got = await choice(door, prompt="hi", add_special_tokens=asked, return_token_ids=True)
    assert got["prompt_token_ids"] == bos + door.backend.tokenizer.encode("hi", add_special_tokens=False)


async def test_the_body_has_openais_fields(door):
    answer = await door.complete(max_tokens=3, seed=5)
    assert answer["object"] == "text_completion"
    assert answer["model"] == MODEL
    assert answer["system_fingerprint"] == door.backend.served.deployment.digest
    assert answer["transom"] == {
        "record": answer["id"],
        "deployment": door.backend.served.deployment.digest,
        "seed": 5,
    }
    assert set(answer["choices"][0]) == {"index", "text", "logprobs", "finish_reason", "stop_reason"}
    assert answer["choices"][0]["logprobs"] is None
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_usage_counts_each_prompt_once_and_every_generated_token(door):
    answer = await door.complete(prompt=[[5, 6, 7], [8]], n=2, best_of=3, max_tokens=5, ignore_eos=True)
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 30, "total_tokens": 34}


async def test_the_default_is_sixteen_tokens(door):
    assert (await door.complete(ignore_eos=True))["usage"]["completion_tokens"] == 16


async def test_a_seed_that_was_not_sent_is_told_and_gives_the_same_answer(door):
    first = await door.complete(max_tokens=10)
    again = await door.complete(max_tokens=10, seed=first["transom"]["seed"])
    assert again["choices"] == first["choices"]


async def test_two_requests_without_a_seed_get_different_ones(door):
    seeds = {(await door.complete(max_tokens=1))["transom"]["seed"] for _ in range(3)}
    assert len(seeds) == 3


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63)])
async def test_every_64_bit_seed_is_taken_and_told(own_door, seed):
    answer = await own_door.complete(max_tokens=2, seed=seed)
    assert answer["transom"]["seed"] == seed
    assert (await own_door.replay(answer["id"]))["level"] == "EXACT"


async def test_n_choices_are_different_draws_under_one_seed(door):
    answer = await door.complete(n=4, seed=3, max_tokens=10)
    assert [each["index"] for each in answer["choices"]] == [0, 1, 2, 3]
    assert len({each["text"] for each in answer["choices"]}) == 4
    single = await door.complete(n=1, seed=3, max_tokens=10)
    assert single["choices"][0]["text"] == answer["choices"][0]["text"]


async def test_best_of_gives_the_likeliest_by_mean_logprob_of_each_prompt(door):
    asked = {"prompt": ["The light", "A door"], "seed": 3, "max_tokens": 6, "logprobs": 0}
    everything = await door.complete(n=5, **asked)
    best = await door.complete(n=2, best_of=5, **asked)

    def mean(each):
        logprobs = each["logprobs"]["token_logprobs"]
        return sum(logprobs) / len(logprobs)

    assert [each["index"] for each in best["choices"]] == [0, 1, 2, 3]
    for prompt in (0, 1):
        group = sorted(everything["choices"][prompt * 5 : prompt * 5 + 5], key=mean, reverse=True)
        chosen = best["choices"][prompt * 2 : prompt * 2 + 2]
        assert [each["text"] for each in chosen] == [each["text"] for each in group[:2]]


async def test_best_of_echoes_the_prompt_that_it_belongs_to(door):
    prompts = ["The light", "A door"]
    answer = await door.complete(prompt=prompts, n=1, best_of=3, echo=True, max_tokens=2)
    for prompt, each in zip(prompts, answer["choices"], strict=True):
        assert each["text"].startswith(prompt)


def assert_aligned(logprobs, length):
    assert {name: len(column) for name, column in logprobs.items()} == dict.fromkeys(logprobs, length)


@pytest.mark.parametrize("prompt", [IDS, "The light", [5]], ids=str)
@pytest.mark.parametrize("max_tokens", [0, 1, 7])
async def test_echoed_arrays_hold_the_prompt_and_what_was_generated(door, prompt, max_tokens):
    got = await choice(
        door,
        prompt=prompt,
        echo=True,
        logprobs=1,
        max_tokens=max_tokens,
        ignore_eos=True,
        return_token_ids=True,
    )
    assert_aligned(got["logprobs"], len(got["prompt_token_ids"]) + max_tokens)
    assert len(got["token_ids"]) == max_tokens
    assert got["logprobs"]["token_logprobs"][0] is None
    assert got["logprobs"]["top_logprobs"][0] is None
    assert None not in got["logprobs"]["token_logprobs"][1:]
    assert got["finish_reason"] == "length"


async def test_a_generated_end_of_sequence_token_is_in_the_arrays_and_not_in_the_text(door):
    got = await choice(door, prompt=IDS, echo=True, logprobs=1, max_tokens=5, **ALWAYS_EOS)
    assert got["finish_reason"] == "stop"
    assert got["stop_reason"] is None
    assert_aligned(got["logprobs"], len(IDS) + 1)
    assert got["logprobs"]["tokens"][-1] == "<|im_end|>"
    assert got["text"] == door.backend.tokenizer.decode(IDS)


async def test_echo_repeats_a_text_prompt_letter_by_letter(door):
    prompt = "  The light \n\u00e9\u4f60 "
    got = await choice(door, prompt=prompt, echo=True, max_tokens=0)
    assert got["text"] == prompt
    assert got["logprobs"] is None


async def test_echo_with_logprobs_0_still_has_the_actual_tokens_logprob(door):
    got = await choice(door, prompt=IDS, echo=True, logprobs=0, max_tokens=1)
    assert_aligned(got["logprobs"], len(IDS) + 1)
    for text, logprob, top in list(
        zip(*(got["logprobs"][name] for name in ("tokens", "token_logprobs", "top_logprobs")), strict=True)
    )[1:]:
        assert top == {text: logprob}


async def test_an_echo_of_a_continuation_scores_it_as_it_was_scored_when_drawn(door):
    drawn = await choice(door, prompt=IDS, max_tokens=6, logprobs=3, return_token_ids=True, ignore_eos=True)
    scored = await choice(door, prompt=IDS + drawn["token_ids"], echo=True, logprobs=3, max_tokens=0)
    assert scored["logprobs"]["token_logprobs"][len(IDS) :] == drawn["logprobs"]["token_logprobs"]
    assert scored["logprobs"]["top_logprobs"][len(IDS) :] == drawn["logprobs"]["top_logprobs"]


@pytest.mark.parametrize("count", [0, 1, 5, 20])
async def test_the_chosen_tokens_logprob_is_the_same_float_in_both_places(door, count):
    got = await choice(door, logprobs=count, max_tokens=30, ignore_eos=True)
    logprobs = got["logprobs"]
    for text, logprob, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert top[text] == logprob
        assert count <= len(top) <= count + 1


async def test_text_offsets_add_up_over_prompt_and_answer(door):
    logprobs = (await choice(door, echo=True, logprobs=1))["logprobs"]
    expected = 0
    for text, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert offset == expected
        expected += len(text)


async def test_prompt_logprobs_are_vllms(door):
    got = await choice(door, prompt=IDS, prompt_logprobs=3, max_tokens=1)
    known = got["prompt_logprobs"]
    assert len(known) == len(IDS)
    assert known[0] is None
    for token_id, entry in zip(IDS[1:], known[1:], strict=True):
        assert next(iter(entry)) == str(token_id)
        assert 3 <= len(entry) <= 4
        for name, details in entry.items():
            assert set(details) == {"logprob", "rank", "decoded_token"}
            assert details["decoded_token"] == door.backend.tokenizer.token_text(int(name))
        others = [details["rank"] for name, details in entry.items() if name != str(token_id)]
        assert others == sorted(others)
        assert max(others) <= 3


async def test_prompt_logprobs_hold_as_many_as_asked_for_also_beside_a_wider_echo(door):
    got = await choice(door, prompt=IDS, prompt_logprobs=1, echo=True, logprobs=5, max_tokens=1)
    assert all(len(entry) <= 2 for entry in got["prompt_logprobs"][1:])
    assert all(len(top) >= 5 for top in got["logprobs"]["top_logprobs"][1:])


async def test_an_echo_holds_as_many_as_asked_for_also_beside_wider_prompt_logprobs(door):
    got = await choice(door, prompt=IDS, prompt_logprobs=5, echo=True, logprobs=1, max_tokens=1)
    assert all(len(entry) >= 5 for entry in got["prompt_logprobs"][1:])
    assert all(len(top) <= 2 for top in got["logprobs"]["top_logprobs"][1:])


async def test_prompt_logprobs_0_gives_the_actual_token_alone(door):
    got = await choice(door, prompt=IDS, prompt_logprobs=0, max_tokens=1)
    assert [list(entry) for entry in got["prompt_logprobs"][1:]] == [[str(i)] for i in IDS[1:]]


@pytest.fixture
async def long_answer(door):
    """An answer without stop strings, in tokens."""
    got = await choice(door, max_tokens=40, temperature=0, logprobs=0)
    assert "bytes:" not in "".join(got["logprobs"]["tokens"])
    return got


async def test_a_stop_string_that_spans_tokens_is_cut_out(door, long_answer):
    tokens = long_answer["logprobs"]["tokens"]
    stop = tokens[6][-1] + tokens[7] + tokens[8][:1]
    got = await choice(door, max_tokens=40, temperature=0, logprobs=0, stop=stop)
    assert got["text"] == long_answer["text"][: long_answer["text"].index(stop)]
    assert got["finish_reason"] == "stop"
    assert got["stop_reason"] == stop
    assert len(got["logprobs"]["tokens"]) <= 9


async def test_the_stop_string_that_begins_first_wins(door, long_answer):
    text = long_answer["text"]
    early, late = text[5:9], text[12:14]
    got = await choice(door, max_tokens=40, temperature=0, stop=[late, "never to be seen", early])
    first = min((early, late), key=text.index)
    assert got["text"] == text[: text.index(first)]
    assert got["stop_reason"] == first


async def test_a_stop_string_in_the_prompt_stops_nothing(door, long_answer):
    got = await choice(door, max_tokens=40, temperature=0, stop="The light", echo=True)
    assert got["text"] == "The light" + long_answer["text"]


async def test_a_stop_token_ends_the_answer_and_is_named(door):
    got = await choice(door, logit_bias={"65": 100}, temperature=0, stop_token_ids=[65, 66])
    assert (got["finish_reason"], got["stop_reason"]) == ("stop", 65)


async def test_ignore_eos_goes_on_past_the_end(door):
    got = await choice(door, max_tokens=5, ignore_eos=True, **ALWAYS_EOS, return_token_ids=True)
    assert got["token_ids"] == [EOS] * 5
    assert got["finish_reason"] == "length"


async def test_explicit_nulls_equal_absent_fields(door):
    from transom.schema.completions import CompletionRequest

    names = set(CompletionRequest.model_fields) | set(CompletionRequest.refused)
    nulls = dict.fromkeys(names - {"model", "prompt", "seed"})
    plain = await door.complete(seed=4)
    nulled = await door.complete(seed=4, **nulls)
    assert nulled["choices"] == plain["choices"]


async def test_the_whole_context_can_be_filled_and_not_one_token_more(door):
    got = await choice(door, prompt=[5] * 250, max_tokens=6, ignore_eos=True, return_token_ids=True)
    assert len(got["token_ids"]) == 6
    reply = await door.post("/v1/completions", {"model": MODEL, "prompt": [5] * 250, "max_tokens": 7})
    error = reply.json()["error"]
    assert (error["param"], error["code"]) == ("max_tokens", "context_length_exceeded")


async def test_a_prompt_that_fills_the_context_can_be_scored(door):
    got = await choice(door, prompt=[5] * 256, max_tokens=0, echo=True, logprobs=0)
    assert_aligned(got["logprobs"], 256)


async def test_the_sampling_parameters_reach_the_engine_as_they_are(own_door):
    await own_door.complete(
        temperature=0.7,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        logit_bias={"9": 1.5, "3": -2},
        stop=["a", "b"],
        stop_token_ids=[7],
        seed=11,
        max_tokens=3,
        n=2,
    )
    first, second = own_door.backend.taken
    sampling = first.sampling
    assert (first.choice, second.choice) == (0, 1)
    assert sampling == second.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.7, 0.9, 40, 0.05)
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (0.5, -0.5)
    assert sampling.logit_bias == ((3, -2.0), (9, 1.5))
    assert (sampling.stop, sampling.stop_token_ids) == (("a", "b"), (7,))
    assert (sampling.seed, sampling.max_tokens) == (11, 3)
    assert (sampling.logprobs, sampling.prompt_logprobs) == (None, None)


@pytest.mark.parametrize("top_k", [-1, 0])
async def test_top_k_of_minus_one_and_of_zero_both_mean_all(own_door, top_k):
    await own_door.complete(top_k=top_k, max_tokens=1)
    assert own_door.backend.taken[0].sampling.top_k == 0
