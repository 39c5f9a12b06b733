"""Any OpenAI client talks to a steered model: tokens as in a plan, records that replay, nobody disturbed."""

from __future__ import annotations

import base64
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx2
import openai
import pytest
from openai import OpenAI
from safetensors.numpy import load

from tests.conftest import REAL_MODEL
from tests.documents import ROOT, blocks
from transom import Client

pytestmark = pytest.mark.e2e

QUESTION = [{"role": "user", "content": "How do you feel about rain?"}]
PROMPT = "The Eiffel Tower is in the city of"
ZERO = {"at": "mlp_out.3", "op": "zero", "pos": {"phase": "generated", "from": 1}}


@pytest.fixture(scope="module")
def direction(server, key):
    """Where the stream of layer 10 points from hate to love, as an inline tensor."""
    runs = {
        word: {"input": word, "read": {"v": {"at": "resid_post.10", "pos": "last"}}}
        for word in ("Love", "Hate")
    }
    plan = {"runs": {name.lower(): run for name, run in runs.items()}, "return": ["love.v", "hate.v"]}
    with Client(server.url, key) as client:
        found = client.trace(plan | {"model": REAL_MODEL})
    array = (found["love.v"].data - found["hate.v"].data)[0]
    packed = {
        "dtype": "float32",
        "shape": list(array.shape),
        "b64": base64.b64encode(array.tobytes()).decode(),
    }
    return {"inline": packed}


@pytest.fixture(scope="module")
def writes(direction):
    return [{"at": "resid_post.10", "op": "add", "value": direction, "scale": 3.0}, ZERO]


@pytest.fixture
def sdk(server, key):
    with OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=200) as client:
        yield client


def chat(sdk, writes, **changes):
    asked = {"messages": QUESTION, "max_tokens": 24, "seed": 5, "logprobs": True, "top_logprobs": 2} | changes
    extra = {"ignore_eos": True, "return_token_ids": True}
    if writes is not None:
        extra["transom"] = {"write": writes}
    return sdk.chat.completions.create(model=REAL_MODEL, extra_body=extra, **asked)


def complete(http, writes, **changes):
    body = {
        "model": REAL_MODEL,
        "prompt": PROMPT,
        "max_tokens": 24,
        "seed": 3,
        "logprobs": 2,
        "ignore_eos": True,
    }
    more = {} if writes is None else {"transom": {"write": writes}}
    return http.post("/v1/completions", json=body | more | changes)


def answer(http, writes, **changes):
    response = complete(http, writes, **changes)
    assert response.status_code == 200, response.text
    return response.json()


def generated_by_a_plan(http, given, writes, **generate):
    run = {"input": given, "write": writes, "generate": {"ignore_eos": True, "logprobs": 0} | generate}
    plan = {"model": REAL_MODEL, "seed": 5, "runs": {"a": run}, "return": ["a.tokens", "a.logprobs"]}
    response = http.post("/v1/traces", json=plan)
    assert response.status_code == 200, response.text
    found = load(response.content)
    return found["a.tokens"].tolist(), found["a.logprobs"].tolist()


def test_a_steered_chat_is_what_a_plan_generates_whole_and_streamed(sdk, http, writes):
    tokens, logprobs = generated_by_a_plan(
        http, {"messages": QUESTION}, writes, max_tokens=24, temperature=1.0
    )
    whole = chat(sdk, writes)
    assert whole.choices[0].model_extra["token_ids"] == tokens
    spoken = whole.choices[0].logprobs.content
    assert [token.logprob for token in spoken] == logprobs
    *chunks, last = chat(sdk, writes, stream=True, stream_options={"include_usage": True})
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == whole.choices[0].message.content
    streamed = [t for chunk in chunks if chunk.choices[0].logprobs for t in chunk.choices[0].logprobs.content]
    assert streamed == spoken
    assert whole.model_extra["transom"]["writes"] == last.model_extra["transom"]["writes"] == 2
    assert said != chat(sdk, None).choices[0].message.content


def test_the_record_says_so_and_replays_to_the_bit(sdk, http, server, key, writes):
    steered = chat(sdk, writes)
    record = http.get(f"/v1/records/{steered.id}").json()
    assert record["statement"]["predicate"]["request"]["writes"].startswith("sha256:")
    first, second = json.loads(record["openings"]["writes"]["json"])
    assert (first["at"], first["op"], first["scale"], first["value"]["shape"]) == (
        "resid_post.10",
        "add",
        3.0,
        [576],
    )
    assert second == ZERO
    assert http.post(f"/v1/records/{steered.id}/replay").json()["level"] == "EXACT"
    plain = chat(sdk, None)
    assert http.get(f"/v1/records/{plain.id}").json()["statement"]["predicate"]["request"]["writes"] is None
    assert "writes" not in plain.model_extra["transom"]


def test_an_empty_list_of_writes_changes_nothing(http):
    assert answer(http, [])["choices"] == answer(http, None)["choices"]


def test_noise_is_the_same_for_everybody_and_another_for_each_choice(http):
    noise = [{"at": "resid_post.5", "op": "noise", "scale": 2.0}]
    several = answer(http, noise, n=3)["choices"]
    assert len({choice["text"] for choice in several}) == 3
    one = answer(http, noise)["choices"][0]
    assert one["logprobs"] == several[0]["logprobs"]


def test_each_prompt_has_its_own_positions(http):
    """Of two prompts, the last position of each, and where a word stands in each."""
    write = [
        {"at": "resid_mid.4", "op": "zero", "pos": "last"},
        {"at": "resid_post.12", "op": "add", "value": 1.5, "pos": {"match": " city"}},
    ]
    prompts = [PROMPT, "In which city is the Colosseum? It is in"]
    together = answer(http, write, prompt=prompts)["choices"]
    for prompt, choice in zip(prompts, together, strict=True):
        alone = answer(http, write, prompt=prompt)["choices"][0]
        assert (alone["text"], alone["logprobs"]) == (choice["text"], choice["logprobs"])


def test_a_prompt_is_scored_by_the_model_that_was_written_to(http):
    """The prompt was scored unwritten before, and after: neither finds the scores of the other."""
    scoring = {"max_tokens": 0, "echo": True, "logprobs": 1, "prompt": PROMPT * 8}
    length = len(http.post("/tokenize", json={"prompt": PROMPT * 8}).json()["tokens"])
    place = length - 20
    write = [{"at": "resid_post.20", "op": "set", "value": 0.0, "pos": place}]
    before = answer(http, None, **scoring)["choices"][0]["logprobs"]
    written = answer(http, write, **scoring)["choices"][0]["logprobs"]
    again = answer(http, write, **scoring)["choices"][0]["logprobs"]
    after = answer(http, None, **scoring)["choices"][0]["logprobs"]
    assert before == after
    assert written == again
    scores, plain = written["token_logprobs"], before["token_logprobs"]
    assert scores[: place + 1] == plain[: place + 1]
    # What stands at the place predicts nothing of its token any more: the norm of nothing is nothing.
    assert scores[place + 1] != plain[place + 1]
    targets = http.post("/tokenize", json={"prompt": PROMPT * 8}).json()["tokens"]
    lens = {"at": "lm_head", "pos": place, "unit": [targets[place + 1]]}
    run = {"input": {"token_ids": targets}, "write": write, "read": {"x": lens}}
    everything = {
        "at": "resid_post.29",
        "pos": place,
        "reduce": {"unembed": {"targets": [targets[place + 1]]}},
    }
    run["read"]["p"] = everything
    plan = {"model": REAL_MODEL, "runs": {"a": run}, "return": ["a.p"]}
    (logprob,) = load(http.post("/v1/traces", json=plan).content)["a.p"].ravel().tolist()
    assert scores[place + 1] == pytest.approx(logprob, abs=1e-5)


def test_who_is_not_steered_notices_nothing_of_who_is(http, writes):
    plain, steered = answer(http, None)["choices"], answer(http, writes)["choices"]
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(answer, http, writes if index % 2 else None) for index in range(8)]
        found = [each.result()["choices"] for each in asked]
    assert found == [steered if index % 2 else plain for index in range(8)]
    assert answer(http, None)["choices"] == plain


def test_a_steered_stream_survives_the_death_of_the_engine(server, http, writes):
    whole = answer(http, writes, max_tokens=40)["choices"][0]["logprobs"]
    tokens, logprobs = [], []
    body = {
        "model": REAL_MODEL,
        "prompt": PROMPT,
        "max_tokens": 40,
        "seed": 3,
        "logprobs": 2,
        "ignore_eos": True,
    }
    body |= {"transom": {"write": writes}, "stream": True}
    with http.stream("POST", "/v1/completions", json=body) as response:
        for line in response.iter_lines():
            if not line or line == "data: [DONE]":
                continue
            part = json.loads(line.removeprefix("data: "))["choices"][0]
            if part["logprobs"]:
                tokens += part["logprobs"]["tokens"]
                logprobs += part["logprobs"]["token_logprobs"]
            if len(tokens) == 12:
                os.kill(server.engine, signal.SIGKILL)
    assert (tokens, logprobs) == (whole["tokens"], whole["token_logprobs"])
    report = http.post(f"/v1/records/{response.headers['x-transom-record']}/replay").json()
    assert (report["level"], report["tokens"]) == ("EXACT", 40)


HUGE = [ZERO, {"at": "resid_mid.3", "op": "set", "value": 1e20, "pos": {"phase": "generated", "from": 2}}]


def test_an_excessive_write_fails_the_request_by_name_and_is_on_record(http):
    response = complete(http, HUGE)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "plan_failed", "transom.write.1")
    record = http.get(f"/v1/records/{response.headers['x-transom-record']}").json()
    assert record["status"] == "failed"
    assert record["statement"]["predicate"]["error"]["code"] == "plan_failed"
    # The last token but two steps was sound, and is still what comes out.
    assert http.post(f"/v1/records/{record['id']}/replay").json()["level"] == "EXACT"


def test_in_a_stream_the_error_comes_after_the_tokens_that_were_sound(sdk, http):
    plain = chat(sdk, HUGE[:1], max_tokens=3)
    said = []

    def listen():
        for chunk in chat(sdk, HUGE, stream=True):
            said.extend(chunk.choices[0].model_extra.get("token_ids") or [])

    with pytest.raises(openai.APIError) as caught:
        listen()
    assert caught.value.code == "plan_failed"
    assert caught.value.param == "transom.write.1"
    assert said == plain.choices[0].model_extra["token_ids"]


def test_whoever_lacks_the_scope_is_told_which(server):
    body = {"model": REAL_MODEL, "prompt": PROMPT, "transom": {"write": [ZERO]}, "max_tokens": 4}
    refused = httpx2.post(f"{server.url}/v1/completions", json=body, timeout=60)
    assert refused.status_code == 403
    assert "internals:write" in refused.json()["error"]["message"]
    body["transom"]["write"] = []
    assert httpx2.post(f"{server.url}/v1/completions", json=body, timeout=60).status_code == 200


def test_the_program_of_the_page_works_as_it_stands(server, key, monkeypatch, capsys):
    monkeypatch.setenv("TRANSOM_BASE_URL", server.url)
    monkeypatch.setenv("TRANSOM_API_KEY", key)
    page = ROOT / "docs" / "howto" / "look-inside.md"
    (program,) = [block for block in blocks(page) if 'transom": {"write' in block.text]
    exec(compile(program.text, program.name, "exec"), {})
    *said, writes, level = capsys.readouterr().out.splitlines()
    assert "".join(said)
    assert (writes, level) == ("1", "EXACT")


def test_our_own_client_steers_too(server, key, sdk, writes):
    with Client(server.url, key) as client:
        ours = client.chat(QUESTION, write=writes, max_tokens=24, seed=5, ignore_eos=True)
        streamed = list(client.stream_chat(QUESTION, write=writes, max_tokens=24, seed=5, ignore_eos=True))
    assert ours.text == chat(sdk, writes).choices[0].message.content
    assert "".join(chunk.text for chunk in streamed) == ours.text
    assert ours.transom.writes == streamed[-1].transom.writes == 2
