"""Every answer is a record, its owner alone reads it, and a replay finds whatever was changed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from sqlalchemy import update

from tests.fakes import make_deployment
from tests.http.door import HELLO, MODEL, chunks_of
from transom.access.projects.projects import ensure_project
from transom.storage.tables import records

pytestmark = pytest.mark.anyio


async def tamper(door, record_id, **columns):
    """Change a row as whoever can write to the database could."""
    change = update(records).where(records.c.id == record_id).values(**columns)
    await door.house.records._database.write(lambda connection: connection.execute(change).rowcount)


async def stored(door, record_id):
    return await door.house.records.get(record_id, "local")


async def other_project(door) -> dict[str, str]:
    database = door.house.records._database
    await database.write(lambda connection: ensure_project(connection, "other"))
    key = (await door.house.keys.create("other")).text
    return {"authorization": f"Bearer {key}"}


async def test_another_project_gets_404_for_a_record_and_its_replay(own_door):
    answer = await own_door.complete(max_tokens=2)
    theirs = await other_project(own_door)
    for method, path in [("GET", ""), ("POST", "/replay")]:
        reply = await own_door.client.request(method, f"/v1/records/{answer['id']}{path}", headers=theirs)
        unknown = await own_door.client.request(method, f"/v1/records/rec_{'0' * 26}{path}", headers=theirs)
        assert reply.status_code == unknown.status_code == 404
        told = reply.json()["error"] | {"message": ""}
        assert told == unknown.json()["error"] | {"message": ""}


async def test_another_projects_records_are_not_in_the_list(own_door):
    await own_door.complete(max_tokens=1)
    theirs = await other_project(own_door)
    assert (await own_door.client.get("/v1/records", headers=theirs)).json() == {"data": [], "after": None}


async def test_a_second_key_of_the_same_project_reads_its_records(own_door):
    answer = await own_door.complete(max_tokens=1)
    key = (await own_door.house.keys.create()).text
    headers = {"authorization": f"Bearer {key}"}
    reply = await own_door.client.get(f"/v1/records/{answer['id']}", headers=headers)
    assert reply.json()["id"] == answer["id"]


@pytest.mark.parametrize("path", ["/v1/completions", f"/models/{MODEL}/v1/completions"])
async def test_header_and_body_name_the_same_record(own_door, path):
    reply = await own_door.post(path, {"model": MODEL, "prompt": "hi", "max_tokens": 1})
    body = reply.json()
    assert reply.headers["x-transom-record"] == body["id"] == body["transom"]["record"]
    record = await own_door.record(body["id"])
    assert record["deployment"] == body["system_fingerprint"]
    assert (record["status"], record["endpoint"]) == ("complete", "/v1/completions")


async def test_a_record_holds_what_was_asked_and_answered(own_door):
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 3, "seed": 4, "user": "me", "top_p": None}
    answer = (await own_door.post("/v1/chat/completions", body)).json()
    record = await own_door.record(answer["id"])
    assert json.loads(record["openings"]["request"]["json"]) == body
    assert json.loads(record["openings"]["messages"]["json"]) == HELLO
    (sequence,) = record["openings"]["sequences"]
    assert sequence["text"]["text"] == answer["choices"][0]["message"]["content"]
    assert record["statement"]["predicate"]["randomness"] == {
        "seed": "4",
        "source": "explicit",
        "joint": None,
    }
    assert HELLO[0]["content"] not in json.dumps(record["statement"])


async def test_the_list_is_paged_newest_first_and_stays_put_under_new_records(own_door):
    ids = [(await own_door.complete(max_tokens=1))["id"] for _ in range(7)]
    seen, after = [], None
    while True:
        query = {"limit": 3} | ({} if after is None else {"after": after})
        page = (await own_door.client.get("/v1/records", params=query)).json()
        seen += page["data"]
        await own_door.complete(max_tokens=1)
        after = page["after"]
        if after is None:
            break
    assert [record["id"] for record in seen] == ids[::-1]
    assert [record["sequence"] for record in seen] == [7, 6, 5, 4, 3, 2, 1]


ANSWERS = {
    "greedy": {"temperature": 0},
    "sampled": {"temperature": 1, "seed": 3},
    "server's seed": {},
    "n": {"n": 3},
    "best_of": {"n": 1, "best_of": 3},
    "many prompts": {"prompt": ["a", "b", "The door"], "add_special_tokens": False},
    "logprobs": {"logprobs": 3, "echo": True},
    "logprobs 0": {"logprobs": 0},
    "prompt_logprobs": {"prompt_logprobs": 2},
    "nothing generated": {"max_tokens": 0},
    "measures": {"measures": {"entropy": True, "rank": True, "surprisal": True, "kl": True, "top_k_mass": 4}},
    "measures of the prompt": {"prompt_measures": {"entropy": True, "top_k_mass": 2}, "prompt": [5, 6, 7]},
    "only measured": {"max_tokens": 0, "prompt_measures": {"rank": True}},
    "distributions": {"distributions": [0, 3], "prompt_distributions": [1, 2], "prompt": [5, 6, 7], "n": 2},
    "all of it, scored too": {
        "measures": {"entropy": True},
        "prompt_measures": {"surprisal": True},
        "distributions": [11],
        "logprobs": 2,
        "echo": True,
        "n": 2,
    },
    "only scored": {"max_tokens": 0, "echo": True, "logprobs": 1},
    "stop": {"stop": ["e", "th"], "temperature": 0},
    "eos": {"logit_bias": {"2": 100}},
    "stop token": {"logit_bias": {"65": 100}, "stop_token_ids": [65]},
    "odd text": {"prompt": "\0\U0001f600\ufffd"},
}


@pytest.mark.parametrize("asked", ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_an_answer_is_replayed_exactly(own_door, asked, stream):
    if stream and "best_of" in asked:
        asked = asked | {"n": 3}
    body = {"prompt": "The light", "max_tokens": 12} | asked
    if stream:
        record_id = chunks_of(await own_door.stream("/v1/completions", **body))[0]["id"]
    else:
        record_id = (await own_door.complete(**body))["id"]
    report = await own_door.replay(record_id)
    assert (report["level"], report["reason"], report["first_difference"]) == ("EXACT", None, None)
    assert report["record"] == record_id
    openings = (await own_door.record(record_id))["openings"]["sequences"]
    assert report["tokens"] == sum(len(sequence["token_ids"]["token_ids"]) for sequence in openings)


async def test_a_conversation_is_replayed_exactly(own_door):
    answer = await own_door.chat(max_tokens=12, logprobs=True, top_logprobs=2, n=2)
    assert (await own_door.replay(answer["id"]))["level"] == "EXACT"


async def test_a_request_that_named_its_model_by_the_path_is_replayed_exactly(own_door):
    reply = await own_door.post(f"/models/{MODEL}/v1/completions", {"prompt": "hi", "max_tokens": 3})
    assert (await own_door.replay(reply.json()["id"]))["level"] == "EXACT"


async def test_a_replay_makes_no_record(own_door):
    answer = await own_door.complete(max_tokens=2)
    await own_door.replay(answer["id"])
    listed = (await own_door.client.get("/v1/records")).json()["data"]
    assert [record["id"] for record in listed] == [answer["id"]]


async def failed_record(door, **body) -> str:
    door.backend.knobs.fail_after = 4
    reply = await door.post("/v1/completions", {"model": MODEL, "prompt": "The light"} | body)
    assert reply.status_code == 500
    door.backend.knobs.fail_after = None
    return reply.headers["x-transom-record"]


@pytest.mark.parametrize("more", [{}, {"logprobs": 2}, {"n": 3, "echo": True, "logprobs": 1}], ids=str)
async def test_what_a_failed_record_holds_is_replayed_exactly(own_door, more):
    record_id = await failed_record(own_door, **more)
    report = await own_door.replay(record_id)
    assert report["level"] == "EXACT", report
    assert report["tokens"] >= 4


async def test_a_record_that_failed_before_its_first_token_cannot_be_replayed(own_door):
    own_door.backend.knobs.unavailable = True
    reply = await own_door.post("/v1/completions", {"model": MODEL, "prompt": "hi"})
    own_door.backend.knobs.unavailable = False
    report = await own_door.replay(reply.headers["x-transom-record"])
    assert (report["level"], report["reason"]) == ("UNREPLAYABLE", "EMPTY")


async def test_a_failed_record_says_why(own_door):
    record = await own_door.record(await failed_record(own_door))
    assert record["status"] == "failed"
    assert record["statement"]["predicate"]["error"]["code"] == "generation_failed"
    assert record["openings"]["error"]["text"] == "the fake was told to fail"


@pytest.mark.parametrize("position", [0, 1, 5, 11])
async def test_a_backend_that_draws_otherwise_is_found_at_its_first_token(own_door, position):
    answer = await own_door.complete(prompt=[5, 6, 7], max_tokens=12, temperature=0)
    own_door.backend.knobs.lie_at = 3 + position
    report = await own_door.replay(answer["id"])
    assert (report["level"], report["reason"]) == ("OUTSIDE", f"TOKEN at {position}")
    assert report["first_difference"] == {"sequence": 0, "position": position}


@pytest.mark.parametrize("position", [0, 7])
async def test_a_logprob_that_is_off_by_one_bit_is_found(own_door, position):
    answer = await own_door.complete(prompt=[5, 6, 7], max_tokens=12, temperature=0)
    own_door.backend.knobs.shade_at = 3 + position
    report = await own_door.replay(answer["id"])
    assert (report["level"], report["reason"]) == ("OUTSIDE", f"LOGPROB at {position}")
    assert report["first_difference"] == {"sequence": 0, "position": position}


async def test_a_prompt_logprob_that_is_off_by_one_bit_is_found(own_door):
    answer = await own_door.complete(prompt=[5, 6, 7], max_tokens=0, echo=True, logprobs=0)
    own_door.backend.knobs.shade_at = 2
    report = await own_door.replay(answer["id"])
    assert report["level"] == "OUTSIDE"
    assert report["reason"].startswith("PROMPT LOGPROBS")


async def test_the_sequence_that_differs_is_named(own_door):
    answer = await own_door.complete(prompt=[[5, 6, 7], [5] * 40], max_tokens=3, temperature=0)
    own_door.backend.knobs.lie_at = 41
    report = await own_door.replay(answer["id"])
    assert report["first_difference"] == {"sequence": 1, "position": 1}


@pytest.mark.parametrize("knob", ["fail_after", "crash_after"])
async def test_an_engine_that_fails_during_a_replay_says_nothing_about_the_record(own_door, knob):
    answer = await own_door.complete(n=3, max_tokens=8, ignore_eos=True)
    setattr(own_door.backend.knobs, knob, 2)
    reply = await own_door.client.post(f"/v1/records/{answer['id']}/replay")
    assert reply.status_code == 500
    assert "level" not in reply.json()


async def test_an_engine_that_is_not_there_for_a_replay_is_a_503(own_door):
    answer = await own_door.complete(n=2, max_tokens=2)
    own_door.backend.knobs.unavailable = True
    reply = await own_door.client.post(f"/v1/records/{answer['id']}/replay")
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "7"


def changed(openings: bytes, *path, value) -> bytes:
    data = json.loads(openings)
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    ("path", "value", "claim"),
    [
        (("sequences", 0, "token_ids", "token_ids"), [5, 6, 7], "output[0].token_ids"),
        (("sequences", 0, "text", "text"), "a lie", "output[0].text"),
        (("sequences", 0, "logprobs"), [-0.5] * 3, "evidence[0].logprobs"),
        (("sequences",), [], "output"),
        (("sequences",), None, "output"),
        (("prompts", 0, "token_ids"), [1, 2], "request.prompts[0]"),
        (("request", "json"), "{}", "request.body"),
        (("messages",), {"salt": "00" * 32, "json": "[]"}, "request.messages"),
    ],
    ids=lambda part: str(part)[:40],
)
async def test_a_changed_opening_is_named(own_door, path, value, claim):
    answer = await own_door.complete(max_tokens=3, ignore_eos=True)
    openings = (await stored(own_door, answer["id"])).openings
    # In the clear, as records from before there was a vault: it is the statement that binds them.
    await tamper(own_door, answer["id"], openings=changed(openings, *path, value=value))
    report = await own_door.replay(answer["id"])
    assert report["level"] == "OUTSIDE"
    assert report["reason"] == f"OPENING {claim}"


async def test_a_shredded_record_keeps_its_statement_and_cannot_be_replayed(own_door):
    answer = await own_door.complete(max_tokens=3, stop=["never"], logit_bias={"5": 1})
    before = await own_door.record(answer["id"])
    await own_door.house.records.shred("local")
    after = await own_door.record(answer["id"])
    assert after == before | {"openings": None}
    report = await own_door.replay(answer["id"])
    assert (report["level"], report["reason"], report["tokens"]) == ("UNREPLAYABLE", "SHREDDED", 0)
    again = await own_door.complete(max_tokens=3)
    assert (await own_door.replay(again["id"]))["level"] == "EXACT"


async def test_openings_that_do_not_open_are_a_500_that_says_so_and_lists_go_on(own_door):
    answer = await own_door.complete(max_tokens=3)
    await tamper(own_door, answer["id"], openings=b"\x01" + bytes(60))
    for method, path in [("GET", ""), ("POST", "/replay")]:
        reply = await own_door.client.request(method, f"/v1/records/{answer['id']}{path}")
        assert reply.status_code == 500
        assert reply.json()["error"]["code"] == "storage_error"
    listed = (await own_door.client.get("/v1/records")).json()["data"]
    assert [record["id"] for record in listed] == [answer["id"]]


async def test_stop_strings_and_biases_are_not_in_the_statement(own_door):
    answer = await own_door.complete(
        max_tokens=3, stop=["whisper"], logit_bias={"5": 31.5}, stop_token_ids=[77]
    )
    record = await own_door.record(answer["id"])
    assert all(text not in json.dumps(record["statement"]) for text in ("whisper", "31.5", "[77]"))
    assert record["openings"]["stop"]["json"] == '["whisper"]'
    assert record["openings"]["stop_token_ids"]["token_ids"] == [77]
    assert record["openings"]["logit_bias"]["json"] == "[[5,31.5]]"
    assert (await own_door.replay(answer["id"]))["level"] == "EXACT"


async def test_what_was_asked_and_answered_is_in_no_file_of_the_database(own_door, tmp_path):
    text = "a prompt that nobody else may read"
    body = {"prompt": text, "max_tokens": 9, "echo": True}
    answer = (await own_door.complete(**body))["choices"][0]["text"].removeprefix(text)
    files = list(tmp_path.glob("transom.db*"))
    assert len(files) == 3
    for secret in (text, answer):
        assert len(secret) > 5
        assert [path.name for path in files if secret.encode() in path.read_bytes()] == []


async def test_a_changed_statement_does_not_match_its_digest(own_door):
    answer = await own_door.complete(max_tokens=3)
    statement = (await stored(own_door, answer["id"])).statement
    forged = statement.replace(b'"temperature":"1.0"', b'"temperature":"0.5"')
    assert forged != statement
    await tamper(own_door, answer["id"], statement=forged)
    report = await own_door.replay(answer["id"])
    assert (report["level"], report["reason"]) == ("OUTSIDE", "DIGEST")


async def test_another_deployment_cannot_replay(own_door):
    answer = await own_door.complete(max_tokens=3)
    own_door.backend.served = own_door.backend.served.model_copy(
        update={"deployment": make_deployment("made-up/2")}
    )
    report = await own_door.replay(answer["id"])
    assert (report["level"], report["reason"]) == ("UNREPLAYABLE", "DEPLOYMENT")


async def test_a_model_that_is_no_longer_served_cannot_replay(own_door):
    answer = await own_door.complete(max_tokens=3)
    del own_door.house.backends[MODEL]
    report = await own_door.replay(answer["id"])
    assert (report["level"], report["reason"]) == ("UNREPLAYABLE", "DEPLOYMENT")


class TestRender:
    @pytest.fixture
    def other(self, own_door, tokenizer, monkeypatch):
        """Change one method of the tokenizer of this door, and of no other."""
        import copy

        mine = own_door.backend.tokenizer = copy.copy(tokenizer)

        def change(name, function):
            monkeypatch.setattr(mine, name, function)

        return change

    async def test_another_chat_template_is_found(self, own_door, other, tokenizer):
        answer = await own_door.chat(max_tokens=3)
        other("render", lambda messages: tokenizer.render(messages) + " ")
        report = await own_door.replay(answer["id"])
        assert (report["level"], report["reason"]) == ("OUTSIDE", "RENDER")

    async def test_a_template_that_refuses_the_messages_now_is_found(self, own_door, other):
        from transom.errors import InvalidRequest

        def render(messages):
            raise InvalidRequest("no longer", param="messages")

        answer = await own_door.chat(max_tokens=3)
        other("render", render)
        report = await own_door.replay(answer["id"])
        assert (report["level"], report["reason"]) == ("OUTSIDE", "RENDER")

    @pytest.mark.parametrize("max_tokens", [3, 0])
    async def test_another_tokenizer_is_found(self, own_door, other, tokenizer, max_tokens):
        answer = await own_door.complete(max_tokens=max_tokens)
        other("encode", lambda text, **_: [5, *tokenizer.encode(text)])
        report = await own_door.replay(answer["id"])
        assert (report["level"], report["reason"]) == ("OUTSIDE", "RENDER")


async def test_a_record_is_still_exact_after_the_knobs_are_turned_back(own_door):
    answer = await own_door.complete(max_tokens=6, temperature=0)
    before = own_door.backend.knobs
    own_door.backend.knobs = replace(before, lie_at=0)
    assert (await own_door.replay(answer["id"]))["level"] == "OUTSIDE"
    own_door.backend.knobs = before
    assert (await own_door.replay(answer["id"]))["level"] == "EXACT"
