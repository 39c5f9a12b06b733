"""The field `transom` over HTTP: what is refused and how, what is on record, and who may."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from safetensors.numpy import save

from tests.fakes import HIDDEN_SIZE
from tests.http.door import HELLO, MODEL, chunks_of, open_door
from tests.http.grants import PROGRAMME, holder
from tests.http.test_artifacts import kept, other_project
from tests.http.test_metering import balanced, rows
from tests.http.test_records import changed, stored, tamper
from transom.schema.canonical import canonical_bytes, sha256
from transom.schema.openings import committed, verify_openings

pytestmark = pytest.mark.anyio

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
ADD = {"at": "resid_post.1", "op": "add", "value": 2.0, "scale": 3.0}
ZERO = {"at": "blocks.0.attn.hook_z", "op": "zero", "head": [2], "pos": {"phase": "generated", "from": 1}}
TENSOR = {"inline": np.linspace(-1, 1, HIDDEN_SIZE).tolist()}
HUGE = {"at": "resid_post.0", "op": "set", "value": 1e20, "pos": {"phase": "generated", "from": 2}}


def under(*writes):
    return {"transom": {"write": list(writes)}}


def error_of(reply, status=400):
    assert reply.status_code == status, reply.text
    return reply.json()["error"]


class TestAnswers:
    async def test_the_backend_is_told_what_is_written_in_each_sequence(self, own_door):
        await own_door.complete(prompt=[[5, 6, 7], [8, 9]], n=2, max_tokens=4, **under(ADD, ZERO))
        found = {request.sequence_id[-1]: request.changes for request in own_door.backend.taken}
        assert [found[str(i)].writes[0].site.positions for i in range(4)] == [tuple(range(6))] * 2 + [
            tuple(range(5))
        ] * 2
        assert [found[str(i)].writes[1].site.positions for i in (0, 2)] == [(4, 5), (3, 4)]
        assert (found["0"].writes[1].site.point, found["0"].writes[1].site.heads) == ("z", (2,))
        assert [found[str(i)].longest for i in (0, 2)] == [7, 6]

    @pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
    async def test_the_answer_says_how_much_was_written_in_every_chunk_too(self, own_door, path):
        asked = {"max_tokens": 3, "seed": 2} | under(ADD)
        asked |= {"messages": HELLO} if path == CHAT else {"prompt": "The light"}
        whole = (await own_door.post(path, {"model": MODEL} | asked)).json()
        assert whole["transom"]["writes"] == 1
        chunks = chunks_of(await own_door.stream(path, **asked))
        assert {chunk["transom"]["writes"] for chunk in chunks} == {1}

    @pytest.mark.parametrize("nothing", [None, {}, {"write": None}, {"write": []}])
    async def test_without_writes_it_is_the_same_answer_and_says_nothing_of_them(self, own_door, nothing):
        plain = await own_door.complete(max_tokens=3, seed=2, logprobs=1)
        other = await own_door.complete(max_tokens=3, seed=2, logprobs=1, transom=nothing)
        assert other["choices"] == plain["choices"]
        assert other["transom"].keys() == plain["transom"].keys() == {"record", "deployment", "seed"}
        assert own_door.backend.taken[-1].changes is None

    async def test_a_tensor_arrives_as_it_was_sent_packed_or_written_out(self, own_door):
        numbers = np.linspace(-1, 1, HIDDEN_SIZE, dtype="<f4")
        packed = {"dtype": "float32", "shape": [HIDDEN_SIZE], "b64": base64.b64encode(numbers).decode()}
        for value in (TENSOR, {"inline": packed}):
            await own_door.complete(max_tokens=1, **under(ADD | {"value": value}))
            (tensor,) = own_door.backend.taken[-1].changes.tensors.values()
            assert (tensor.shape, tensor.data) == ((HIDDEN_SIZE,), numbers.tobytes())


class TestArtifacts:
    async def test_their_numbers_are_written_and_travel_once(self, own_door):
        numbers = np.linspace(-1, 1, HIDDEN_SIZE, dtype=np.float16)
        name = await kept(own_door, save({"v": numbers, "w": numbers[:3]}))
        by_name = [ADD | {"at": f"resid_post.{layer}", "value": f"{name}#v"} for layer in (0, 1)]
        answer = await own_door.complete(max_tokens=3, seed=2, **under(*by_name))
        (tensor,) = own_door.backend.taken[-1].changes.tensors.values()
        assert tensor.data == numbers.astype("<f4").tobytes()
        inline = {"inline": numbers.astype(np.float32).tolist()}
        same = await own_door.complete(
            max_tokens=3, seed=2, **under(*[w | {"value": inline} for w in by_name])
        )
        told = [
            json.loads((await own_door.record(each["id"]))["openings"]["writes"]["json"])
            for each in (answer, same)
        ]
        assert told[0] == told[1]

    async def test_a_record_replays_until_its_artifact_is_deleted(self, own_door):
        name = await kept(own_door, save({"v": np.ones(HIDDEN_SIZE, np.float32)}))
        answer = await own_door.complete(max_tokens=3, **under(ADD | {"value": name}))
        assert (await own_door.replay(answer["id"]))["level"] == "EXACT"
        assert (await own_door.client.delete(f"/v1/artifacts/{name}")).status_code == 204
        report = await own_door.replay(answer["id"])
        assert (report["level"], report["reason"]) == ("UNREPLAYABLE", "ARTIFACT")

    async def test_those_of_others_are_not_there(self, own_door):
        name = await kept(own_door, save({"v": np.ones(HIDDEN_SIZE, np.float32)}))
        body = {"model": MODEL, "prompt": "hi", "max_tokens": 2} | under(ADD | {"value": name})
        reply = await own_door.client.post(COMPLETIONS, json=body, headers=await other_project(own_door))
        error = error_of(reply)
        assert (error["code"], error["param"]) == ("unknown_artifact", "transom.write.0.value")

    @pytest.mark.parametrize(
        ("behind", "code"), [("", "unknown_artifact"), ("#x", "unknown_artifact"), ("#w", "invalid_value")]
    )
    async def test_a_tensor_that_is_not_meant_clearly_or_does_not_fit_is_refused(
        self, own_door, behind, code
    ):
        name = await kept(
            own_door, save({"v": np.ones(HIDDEN_SIZE, np.float32), "w": np.ones(3, np.float32)})
        )
        body = {"model": MODEL, "prompt": "hi", "max_tokens": 2} | under(ADD | {"value": name + behind})
        error = error_of(await own_door.post(COMPLETIONS, body))
        assert (error["code"], error["param"]) == (code, "transom.write.0.value")

    async def test_too_much_for_so_many_sequences_is_not_even_read(self, own_door):
        name = await kept(own_door, save({"v": np.ones((200, HIDDEN_SIZE), np.float32)}))
        body = {"model": MODEL, "prompt": "hi", "n": 64, "max_tokens": 2} | under(ADD | {"value": name})
        error = error_of(await own_door.post(COMPLETIONS, body))
        assert (error["code"], error["param"]) == ("plan_too_large", "transom.write.0.value")


class TestRefusals:
    @pytest.mark.parametrize(
        ("given", "param", "code"),
        [
            ({"writes": []}, "transom.writes", "unknown_parameter"),
            ({"write": {}}, "transom.write", "invalid_value"),
            ([], "transom", "invalid_value"),
            ({"write": [{"op": "zero"}]}, "transom.write.0.at", "missing_parameter"),
            ({"write": [ADD | {"x": 1}]}, "transom.write.0.x", "unknown_parameter"),
            ({"write": [ADD, ADD | {"value": "a.x"}]}, "transom.write.1.value", "invalid_value"),
            ({"write": [ADD | {"value": "derive.x"}]}, "transom.write.0.value", "invalid_value"),
            (
                {"write": [{"at": "resid_post.1", "op": "swap", "value": {"run": "a"}}]},
                "transom.write.0.value",
                "invalid_value",
            ),
            (
                {"write": [ADD | {"value": "artifact:" + "0" * 64}]},
                "transom.write.0.value",
                "unknown_artifact",
            ),
            ({"write": [ADD | {"at": "resid_post.{layer}"}]}, "transom.write.0.at", "invalid_value"),
            ({"write": [ADD | {"pos": "{pos}"}]}, "transom.write.0.pos", "invalid_value"),
            ({"write": [ZERO | {"head": ["{head}"]}]}, "transom.write.0.head", "invalid_value"),
            ({"write": [ADD | {"at": "resid_post.*"}]}, "transom.write.0.at", "invalid_value"),
            ({"write": [ADD | {"at": "resid_post.9"}]}, "transom.write.0.at", "invalid_value"),
            ({"write": [ADD | {"at": "resid_mid.0"}]}, "transom.write.0.at", "unknown_point"),
            ({"write": [ADD | {"at": "lm_head"}]}, "transom.write.0.at", "invalid_value"),
            ({"write": [ADD | {"pos": 99}]}, "transom.write.0.pos", "invalid_value"),
            ({"write": [ADD | {"pos": {"match": "nowhere"}}]}, "transom.write.0.pos", "invalid_value"),
            ({"write": [ZERO | {"head": [4]}]}, "transom.write.0.head", "invalid_value"),
            ({"write": [ADD | {"unit": [HIDDEN_SIZE]}]}, "transom.write.0.unit", "invalid_value"),
            ({"write": [ADD | {"value": {"inline": [1.0, 2.0]}}]}, "transom.write.0.value", "invalid_value"),
            (
                {"write": [ADD | {"value": {"inline": [[1.0], 2.0]}}]},
                "transom.write.0.value.inline.1",
                "invalid_value",
            ),
            ({"write": [ADD | {"scale": 1e39}]}, "transom.write.0.scale", "invalid_value"),
            ({"write": [ADD] * 65}, "transom.write", "invalid_value"),
        ],
        ids=lambda part: str(part)[:60],
    )
    @pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
    async def test_it_names_the_field(self, door, path, given, param, code):
        asked = {"messages": HELLO} if path == CHAT else {"prompt": "The light"}
        reply = await door.post(path, {"model": MODEL, "max_tokens": 4, "transom": given} | asked)
        error = error_of(reply)
        assert (error["param"], error["code"]) == (param, code), error
        assert "x-transom-record" not in reply.headers

    async def test_of_several_prompts_the_one_is_named_that_lacks_the_place(self, door):
        body = {"model": MODEL, "prompt": [[5, 6, 7], [8]], "max_tokens": 1} | under(ADD | {"pos": 1})
        error = error_of(await door.post(COMPLETIONS, body))
        assert error["param"] == "transom.write.0.pos"
        assert error["message"].startswith("Of prompt 1: ")

    async def test_tensors_of_many_sequences_are_bounded(self, door):
        body = {"model": MODEL, "prompt": [[5] * 8] * 64, "n": 2, "max_tokens": 2}
        wide = {"inline": [[0.5] * HIDDEN_SIZE] * 8}
        error = error_of(
            await door.post(COMPLETIONS, body | under(*[ADD | {"value": wide, "pos": {"from": 0}}] * 8))
        )
        assert (error["param"], error["code"]) == ("transom.write", "plan_too_large")

    async def test_places_of_many_sequences_are_bounded(self, door):
        body = {"model": MODEL, "prompt": [[5] * 100] * 4, "n": 128, "max_tokens": 100} | under(*[ADD] * 64)
        error = error_of(await door.post(COMPLETIONS, body))
        assert error["code"] == "plan_too_large"
        assert error["param"].startswith("transom.write.")


class TestFailure:
    async def test_a_write_that_is_too_much_is_a_400_with_a_record(self, own_door):
        reply = await own_door.post(
            COMPLETIONS, {"model": MODEL, "prompt": "hi", "max_tokens": 9} | under(ADD, HUGE)
        )
        error = error_of(reply)
        assert (error["code"], error["param"], error["layer"]) == ("plan_failed", "transom.write.1", "engine")
        record = await own_door.record(reply.headers["x-transom-record"])
        assert record["status"] == "failed"
        assert record["statement"]["predicate"]["error"]["code"] == "plan_failed"
        assert len(record["openings"]["sequences"][0]["token_ids"]["token_ids"]) == 3
        assert (await own_door.replay(record["id"]))["level"] == "EXACT"

    @pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
    async def test_in_a_stream_it_is_an_event(self, own_door, path):
        asked = {"messages": HELLO} if path == CHAT else {"prompt": "hi"}
        *_, (name, data), done = await own_door.stream(path, max_tokens=9, **asked, **under(HUGE))
        assert (name, done) == ("error", (None, "[DONE]"))
        assert (data["error"]["code"], data["error"]["param"]) == ("plan_failed", "transom.write.0")
        assert data["error"]["type"] == "invalid_request_error"
        (record,) = (await own_door.client.get("/v1/records")).json()["data"]
        assert record["status"] == "failed"


class TestRecords:
    ASKED = {"max_tokens": 5, "seed": 3, "n": 2, "logprobs": 1, "prompt_logprobs": 1, "ignore_eos": True}

    async def asked(self, door, *writes):
        answer = await door.complete(**self.ASKED, **under(*writes))
        return answer["id"]

    async def test_it_says_what_was_written_and_replays_exactly(self, own_door):
        record_id = await self.asked(own_door, ADD | {"value": TENSOR}, ZERO)
        record = await own_door.record(record_id)
        assert verify_openings(record["statement"], record["openings"]) == []
        assert "resid_post" not in json.dumps(record["statement"])
        digest = sha256(np.linspace(-1, 1, HIDDEN_SIZE, dtype="<f4").tobytes())
        assert json.loads(record["openings"]["writes"]["json"]) == [
            ADD | {"pos": "all", "value": {"shape": [HIDDEN_SIZE], "sha256": digest}},
            ZERO | {"at": "z.0"},
        ]
        report = await own_door.replay(record_id)
        assert (report["level"], report["tokens"]) == ("EXACT", 10)

    async def test_a_conversation_is_replayed_exactly_too(self, own_door):
        answer = await own_door.chat(max_tokens=5, **under(ADD, ZERO))
        assert (await own_door.replay(answer["id"]))["level"] == "EXACT"

    async def test_other_writes_in_the_openings_are_found(self, own_door):
        record_id = await self.asked(own_door, ADD)
        openings = (await stored(own_door, record_id)).openings
        other = json.dumps([ADD | {"pos": "all", "scale": 4.0}])
        await tamper(own_door, record_id, openings=changed(openings, "writes", "json", value=other))
        assert (await own_door.replay(record_id))["reason"] == "OPENING request.writes"

    async def forge(self, door, record_id, *, body=None, writes=None):
        """Other writes, with commitments that open, in a statement whose digest is right."""
        record = await stored(door, record_id)
        statement, openings = json.loads(record.statement), json.loads(record.openings)
        request = statement["predicate"]["request"]
        if body is not None:
            asked = json.loads(openings["request"]["json"]) | {"transom": {"write": body}}
            openings["request"]["json"] = json.dumps(asked)
            request["body"] = committed("body", openings["request"])
        if writes is not None:
            openings["writes"] = {"salt": "11" * 32, "json": json.dumps(writes)} if writes else None
            request["writes"] = committed("writes", openings["writes"]) if writes else None
        raw = canonical_bytes(statement)
        await tamper(
            door, record_id, statement=raw, digest=sha256(raw), openings=json.dumps(openings).encode()
        )

    async def test_a_statement_whose_writes_are_not_those_that_were_asked_for_is_found(self, own_door):
        louder = ADD | {"scale": 4.0}
        for more in ({"body": [louder]}, {"writes": [louder | {"pos": "all"}]}, {"writes": []}, {"body": []}):
            record_id = await self.asked(own_door, ADD)
            await self.forge(own_door, record_id, **more)
            report = await own_door.replay(record_id)
            assert (report["level"], report["reason"]) == ("OUTSIDE", "RENDER"), more

    async def test_writes_that_were_changed_everywhere_give_another_answer(self, own_door):
        for other in ([ADD | {"scale": 4.0}], [ADD, ZERO], [], [HUGE]):
            record_id = await self.asked(own_door, ADD)
            told = [write | {"pos": write.get("pos", "all")} for write in other]
            told = [write | ({"at": "z.0"} if write["at"].startswith("blocks") else {}) for write in told]
            await self.forge(own_door, record_id, body=other, writes=told)
            report = await own_door.replay(record_id)
            assert report["level"] == "OUTSIDE", other
            assert report["reason"].startswith(("TOKEN at", "LOGPROB at", "PROMPT LOGPROBS")), other


class TestWhoMay:
    @pytest.fixture
    async def granted(self, tokenizer, tmp_path):
        wide = '"model:bias", "records:read", "records:replay"]'
        assert PROGRAMME.count(wide) == 1
        inside = PROGRAMME.replace(wide, wide.replace("]", ', "internals:write"]'))
        (tmp_path / "programme.toml").write_text(inside)
        async with open_door(tmp_path, tokenizer) as door:
            yield door

    async def test_who_lacks_the_scope_is_told_which_and_nothing_runs(self, granted):
        someone = await holder(granted)
        error = error_of(await someone.ask(**under(ADD)), 403)
        assert (error["code"], error["layer"]) == ("insufficient_scope", "access")
        assert "internals:write" in error["message"]
        assert granted.backend.taken == []
        assert (await someone.ask(**under())).status_code == 200

    async def test_who_has_it_is_charged_what_everybody_is(self, granted):
        someone = await holder(granted, tier="wide")
        for more in ({}, under(ADD)):
            reply = await someone.ask(max_tokens=4, ignore_eos=True, **more)
            assert reply.status_code == 200
        headers = {"authorization": f"Bearer {someone.key}"}
        record = reply.headers["x-transom-record"]
        report = (await granted.client.post(f"/v1/records/{record}/replay", headers=headers)).json()
        assert report["level"] == "EXACT"
        plain, steered, again = await rows(granted)
        assert plain["tokens"] == steered["tokens"] == again["tokens"]
        assert steered["engine_us"] > 0
        await balanced(granted)
