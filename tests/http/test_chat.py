"""`/v1/chat/completions`."""

from __future__ import annotations

import pytest

from tests.fakes import make_root
from tests.http.door import HELLO, MODEL, open_door
from transom.backends.tokenizer import LocalTokenizer

pytestmark = pytest.mark.anyio


async def refused(door, messages):
    reply = await door.post("/v1/chat/completions", {"model": MODEL, "messages": messages})
    assert reply.status_code == 400, reply.text
    return reply.json()["error"]


async def test_what_the_template_refuses_is_the_callers_error_in_the_templates_words(door):
    error = await refused(door, [{"role": "developer", "content": "hi"}])
    assert error["param"] == "messages"
    assert "unknown role developer" in error["message"]


async def test_a_base_model_refuses_conversations(tmp_path):
    root = make_root(tmp_path / "root")
    (root / "chat_template.jinja").unlink()
    async with open_door(tmp_path / "home", LocalTokenizer(root)) as door:
        error = await refused(door, HELLO)
        assert error["param"] == "messages"
        assert "/v1/completions" in error["message"]
        reply = await door.post("/tokenize", {"model": MODEL, "messages": HELLO})
        assert reply.json()["error"]["param"] == "messages"


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
async def test_each_role_reaches_a_template_that_takes_it(tmp_path, role):
    root = make_root(tmp_path / "root")
    (root / "chat_template.jinja").write_text(
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    )
    async with open_door(tmp_path / "home", LocalTokenizer(root)) as door:
        answer = await door.chat(
            messages=[{"role": role, "content": "hi"}], max_tokens=1, return_token_ids=True
        )
    assert door.backend.tokenizer.decode(answer["prompt_token_ids"]) == f"[{role}]hi"


async def test_the_prompt_is_the_rendered_template_and_nothing_added(own_door):
    answer = await own_door.chat(max_tokens=1, return_token_ids=True)
    text = own_door.backend.tokenizer.render(HELLO)
    expected = own_door.backend.tokenizer.encode(text, add_special_tokens=False)
    assert answer["prompt_token_ids"] == expected
    assert own_door.backend.taken[0].prompt_token_ids == tuple(expected)


async def test_content_parts_are_joined(door):
    parts = [{"type": "text", "text": "Is there "}, {"type": "text", "text": "a light in the window?"}]
    one = await door.chat(messages=[{"role": "user", "content": parts}], seed=1, return_token_ids=True)
    other = await door.chat(seed=1, return_token_ids=True)
    assert one["prompt_token_ids"] == other["prompt_token_ids"]
    assert one["choices"] == other["choices"]


async def test_the_body_has_openais_fields(door):
    answer = await door.chat(max_tokens=4, seed=9)
    assert answer["object"] == "chat.completion"
    assert answer["transom"]["seed"] == 9
    (choice,) = answer["choices"]
    assert set(choice) == {"index", "message", "logprobs", "finish_reason", "stop_reason"}
    assert set(choice["message"]) == {"role", "content", "refusal"}
    assert choice["message"]["role"] == "assistant"
    assert choice["logprobs"] is None
    assert answer["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("count", [None, 0, 1, 20])
async def test_logprobs_spell_each_token_in_text_and_bytes(door, count):
    answer = await door.chat(logprobs=True, top_logprobs=count, max_tokens=30, seed=2, ignore_eos=True)
    content = answer["choices"][0]["logprobs"]["content"]
    assert len(content) == 30
    for token in content:
        assert set(token) == {"token", "logprob", "bytes", "top_logprobs"}
        assert len(token["top_logprobs"]) == (count or 0)
        for entry in (token, *token["top_logprobs"]):
            spelled = bytes(entry["bytes"])
            assert entry["token"].startswith("bytes:") or entry["token"].encode() == spelled
        same = [top["logprob"] for top in token["top_logprobs"] if top["bytes"] == token["bytes"]]
        assert same in ([], [token["logprob"]])
    joined = b"".join(bytes(token["bytes"]) for token in content)
    assert joined.decode(errors="replace") == answer["choices"][0]["message"]["content"]


async def test_n_choices_are_different_draws(door):
    answer = await door.chat(n=3, seed=1, max_tokens=10)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in answer["choices"]}) == 3


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_both_names_of_the_limit_are_honoured(door, name):
    answer = await door.chat(**{name: 3}, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 3


async def test_without_a_limit_the_context_is_the_limit(door):
    answer = await door.chat(ignore_eos=True)
    assert answer["usage"]["total_tokens"] == 256
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_stop_strings_are_cut_out(door):
    whole = (await door.chat(temperature=0, max_tokens=20))["choices"][0]["message"]["content"]
    stop = whole[4:8]
    choice = (await door.chat(temperature=0, max_tokens=20, stop=[stop]))["choices"][0]
    assert choice["message"]["content"] == whole[: whole.index(stop)]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)


async def test_explicit_nulls_equal_absent_fields(door):
    from transom.schema.chat import ChatRequest
    from transom.schema.messages import Message

    names = set(ChatRequest.model_fields) | set(ChatRequest.refused)
    nulls = dict.fromkeys(names - {"model", "messages", "seed", "max_tokens"})
    turn = dict.fromkeys(Message.model_fields) | {"tool_calls": None} | HELLO[0]
    del turn["tool_calls"]
    plain = await door.chat(seed=4, max_tokens=8)
    nulled = await door.chat(seed=4, max_tokens=8, messages=[turn], **nulls)
    assert nulled["choices"] == plain["choices"]


async def test_prompt_logprobs_stand_beside_the_choices(door):
    answer = await door.chat(prompt_logprobs=1, n=2, max_tokens=1, return_token_ids=True)
    assert len(answer["prompt_logprobs"]) == len(answer["prompt_token_ids"])
    assert answer["prompt_logprobs"][0] is None
