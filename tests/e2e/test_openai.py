"""The openai SDK runs unmodified against the real server, and so do the habits of HELM and LangChain."""

from __future__ import annotations

import time

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.conftest import REAL_MODEL

pytestmark = pytest.mark.e2e

PROMPT = "The capital of France is"
QUESTION = [{"role": "user", "content": "Name a colour."}]


@pytest.fixture
def client(server, key):
    with OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=200) as client:
        yield client


def complete(client: OpenAI, **changes):
    return client.completions.create(**{"model": REAL_MODEL, "prompt": PROMPT, "max_tokens": 4} | changes)


def chat(client: OpenAI, **changes):
    return client.chat.completions.create(
        **{"model": REAL_MODEL, "messages": QUESTION, "max_tokens": 4} | changes
    )


def test_a_completion_has_text_usage_and_its_record(client, http):
    answer = complete(client, temperature=0)
    assert answer.object == "text_completion"
    assert answer.model == REAL_MODEL
    assert answer.choices[0].text == " Paris.\n\n"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 4
    extra = answer.model_extra["transom"]
    assert extra["record"] == answer.id
    record = http.get(f"/v1/records/{answer.id}").json()
    assert record["deployment"] == extra["deployment"] == answer.system_fingerprint
    assert record["openings"]["sequences"][0]["text"]["text"] == answer.choices[0].text


def test_a_chat_has_a_message_usage_and_its_record(client, http):
    answer = chat(client, seed=5)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage.completion_tokens <= 4
    assert answer.model_extra["transom"]["seed"] == 5
    record = http.get(f"/v1/records/{answer.model_extra['transom']['record']}").json()
    assert record["openings"]["sequences"][0]["text"]["text"] == answer.choices[0].message.content


def test_the_record_is_in_a_header_of_the_raw_response(client):
    raw = client.chat.completions.with_raw_response.create(
        model=REAL_MODEL, messages=QUESTION, max_completion_tokens=1
    )
    assert raw.headers["x-transom-record"] == raw.parse().id


def test_a_streamed_completion_is_the_whole_one_in_pieces_with_usage_at_the_end(client):
    whole = complete(client, seed=3, logprobs=1)
    *chunks, last = complete(client, seed=3, logprobs=1, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    spoken = [
        logprob
        for chunk in chunks
        if chunk.choices[0].logprobs
        for logprob in chunk.choices[0].logprobs.token_logprobs
    ]
    assert spoken == whole.choices[0].logprobs.token_logprobs
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.choices == []
    assert last.usage.total_tokens == whole.usage.total_tokens
    assert last.system_fingerprint == whole.system_fingerprint
    assert last.model_extra["transom"]["record"].startswith("rec_")


def test_a_streamed_chat_is_the_whole_one_in_pieces_with_usage_at_the_end(client):
    whole = chat(client, seed=3, logprobs=True, top_logprobs=2)
    *chunks, last = chat(
        client, seed=3, logprobs=True, top_logprobs=2, stream=True, stream_options={"include_usage": True}
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == whole.choices[0].message.content
    spoken = [
        token for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content
    ]
    assert spoken == whole.choices[0].logprobs.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.usage.completion_tokens == whole.usage.completion_tokens


def test_the_stream_helper_of_the_sdk_puts_the_answer_together(client):
    # The helper takes an answer that ends for its length for an error, so this one stops at a space.
    asked = {"model": REAL_MODEL, "messages": QUESTION, "temperature": 0, "stop": [" "]}
    with client.chat.completions.stream(**asked) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "stop"
    whole = client.chat.completions.create(**asked)
    assert final.choices[0].message.content == whole.choices[0].message.content


def test_logprobs_of_a_completion_name_the_chosen_token_among_the_likeliest(client):
    found = complete(client, temperature=0, logprobs=3).choices[0].logprobs
    assert len(found.tokens) == len(found.token_logprobs) == len(found.top_logprobs) == 4
    assert found.text_offset[0] == 0
    for token, logprob, top in zip(found.tokens, found.token_logprobs, found.top_logprobs, strict=True):
        # Greedy, so the same float in both places: lm-eval decides by `==`.
        assert top[token] == logprob == max(top.values())
        assert len(top) == 3


def test_logprobs_of_a_chat_carry_bytes_and_alternatives(client):
    content = chat(client, temperature=0, logprobs=True, top_logprobs=5).choices[0].logprobs.content
    for token in content:
        assert len(token.top_logprobs) == 5
        assert token.top_logprobs[0].logprob == token.logprob
        assert bytes(token.bytes).decode() == token.token


def test_n_choices_differ_and_the_first_is_the_only_one_of_n_1(client):
    several = complete(client, n=3, seed=21, temperature=1.5)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert len({choice.text for choice in several.choices}) > 1
    assert several.choices[0].text == complete(client, seed=21, temperature=1.5).choices[0].text
    assert several.usage.completion_tokens <= 12


def test_a_seed_draws_the_same_answer_again_and_another_seed_another(client):
    first, again, other = (complete(client, seed=seed, max_tokens=8, logprobs=1) for seed in (7, 7, 8))
    assert first.choices[0].text == again.choices[0].text
    assert first.choices[0].logprobs.token_logprobs == again.choices[0].logprobs.token_logprobs
    assert first.id != again.id
    assert first.choices[0].text != other.choices[0].text


def test_without_a_seed_the_server_reports_the_one_it_drew_and_it_draws_the_same(client):
    first = complete(client, temperature=1.2)
    again = complete(client, temperature=1.2, seed=first.model_extra["transom"]["seed"])
    assert first.choices[0].text == again.choices[0].text


def test_models_are_listed_and_retrieved_with_their_deployment(client):
    listed = client.models.list().data
    assert REAL_MODEL in [model.id for model in listed]
    model = client.models.retrieve(REAL_MODEL)
    assert model in listed
    assert model.model_extra["digest"] == complete(client, max_tokens=1).system_fingerprint
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody")
    assert caught.value.code == "model_not_found"


def test_a_base_url_below_a_model_serves_that_model(client, server):
    below = client.with_options(base_url=f"{server.url}/models/{REAL_MODEL}/v1")
    assert complete(below, temperature=0).choices[0].text == complete(client, temperature=0).choices[0].text
    assert [model.id for model in below.models.list().data] == [REAL_MODEL]
    with pytest.raises(openai.BadRequestError) as caught:
        complete(below, model="another")
    assert caught.value.param == "model"


def test_a_wrong_key_is_an_authentication_error(client):
    with pytest.raises(openai.AuthenticationError) as caught:
        complete(client.with_options(api_key="sk-of-somebody-else"))
    assert caught.value.code == "invalid_api_key"


def test_the_key_empty_is_the_anonymous_tier(client):
    assert complete(client.with_options(api_key="EMPTY"), max_tokens=1).id.startswith("rec_")


def test_an_unknown_model_is_a_not_found_error(client):
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client, model="gpt-4o")
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert REAL_MODEL in caught.value.message


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"temperature": -1}, "temperature", "invalid_value"),
        ({"max_tokens": 100_000}, "max_tokens", "context_length_exceeded"),
        ({"extra_body": {"unheard_of": 1}}, "unheard_of", "unknown_parameter"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"messages": [{"role": "nobody", "content": "hi"}]}, "messages.0.role", "invalid_value"),
    ],
)
def test_a_wrong_parameter_is_a_bad_request_error_that_names_it(client, changes, param, code):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **changes)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.type == "invalid_request_error"


def test_what_is_not_offered_is_a_not_found_error_in_openais_shape(client, http):
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model=REAL_MODEL, input="hi")
    assert caught.value.code == "not_found"
    reply = http.post("/v1/embeddings", json={"model": REAL_MODEL, "input": "hi"})
    assert reply.status_code == 404
    assert reply.json()["error"].keys() >= {"message", "type", "param", "code"}


def test_a_stream_that_is_left_early_is_on_record_as_aborted(client, http):
    with complete(client, stream=True, max_tokens=2000, extra_body={"ignore_eos": True}) as stream:
        record_id = next(iter(stream)).id
    deadline = time.monotonic() + 60
    while (reply := http.get(f"/v1/records/{record_id}")).status_code == 404:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert reply.json()["status"] == "aborted"
    assert reply.json()["openings"]["sequences"][0]["token_ids"]["token_ids"]


@pytest.mark.anyio
async def test_the_async_client_answers_and_streams(server, key):
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=200) as client:
        asked = {"model": REAL_MODEL, "messages": QUESTION, "max_tokens": 4, "seed": 3}
        whole = await client.chat.completions.create(**asked)
        stream = await client.chat.completions.create(**asked, stream=True)
        said = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(said) == whole.choices[0].message.content


def test_helm_scores_a_text_with_echo_and_no_new_token(http):
    body = {"model": REAL_MODEL, "prompt": PROMPT, "echo": True, "max_tokens": 0, "logprobs": 1, "n": 1}
    reply = http.post("/v1/completions", json=body | {"best_of": 1, "stop": None, "temperature": 0})
    (choice,) = reply.json()["choices"]
    assert choice["text"] == PROMPT
    found = choice["logprobs"]
    assert "".join(found["tokens"]) == PROMPT
    assert found["token_logprobs"][0] is found["top_logprobs"][0] is None
    assert all(logprob < 0 for logprob in found["token_logprobs"][1:])
    assert {len(values) for values in found.values()} == {reply.json()["usage"]["prompt_tokens"]}
    assert reply.json()["usage"]["completion_tokens"] == 0


def test_best_of_answers_with_the_likeliest_and_counts_every_draw(http):
    body = {
        "model": REAL_MODEL,
        "prompt": PROMPT,
        "max_tokens": 3,
        "seed": 2,
        "logprobs": 0,
        "temperature": 2,
    }
    every = http.post("/v1/completions", json=body | {"n": 4, "ignore_eos": True}).json()["choices"]
    reply = http.post("/v1/completions", json=body | {"n": 1, "best_of": 4, "ignore_eos": True}).json()
    (best,) = reply["choices"]
    likeliest = max(every, key=lambda choice: sum(choice["logprobs"]["token_logprobs"]))
    assert best["text"] == likeliest["text"]
    assert best["logprobs"]["token_logprobs"] == likeliest["logprobs"]["token_logprobs"]
    assert reply["usage"]["completion_tokens"] == 12


def test_the_explicit_nulls_of_langchain_count_as_absent(http):
    names = """stop logit_bias user top_p n frequency_penalty presence_penalty stream_options tools
        tool_choice response_format functions logprobs top_logprobs max_tokens"""
    nulls = dict.fromkeys(names.split())
    body = {"model": REAL_MODEL, "messages": QUESTION, "seed": 3, "temperature": 0, "stream": False}
    given = http.post("/v1/chat/completions", json=body | nulls | {"max_completion_tokens": 4})
    absent = http.post("/v1/chat/completions", json=body | {"max_completion_tokens": 4})
    assert given.status_code == 200, given.text
    assert given.json()["choices"] == absent.json()["choices"]
