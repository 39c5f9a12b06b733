"""Asking any OpenAI-compatible API, and the file that a baseline is."""

from __future__ import annotations

import json

import httpx2
import pytest

from tests.unit.client.watching_standin import MODEL, TOP, URL, Api, no_logprobs, refuse
from transom.client import RateLimited, ServerUnreachable, UnexpectedReply
from transom.client.connection import Connection
from transom.client.watching import baseline as baselines
from transom.client.watching.asking import TRIES, Asker
from transom.client.watching.baseline import Form, Look, Plan
from transom.client.watching.looking import LOGPROB_PROMPTS, take_baseline, take_look
from transom.errors import EngineUnavailable, Forbidden, InvalidRequest, NotFound, Unauthenticated

LOGPROBS = Form(endpoint="chat", top=20)


@pytest.fixture
def api():
    return Api()


@pytest.fixture
def waits():
    return []


@pytest.fixture
def asker(api, waits):
    return make_asker(api, waits)


def make_asker(api, waits=None, model=MODEL, **options):
    connection = Connection.find(URL, "key", {})
    http = httpx2.Client(**connection.options(5), transport=httpx2.MockTransport(api))
    return Asker(http, model, sleep=[].append if waits is None else waits.append, **options)


def plan(form=LOGPROBS, **changes):
    usual = {"prompts": ("x", "y"), "max_tokens": 1, "before": 6, "after": 3, "alpha": 0.05, "looks": 2}
    return Plan(form=form, **{"tolerance": 0.0} | usual | changes)


class TestForms:
    """How a server wants to be asked."""

    def test_most_logprobs_of_a_chat_come_first(self, api, asker):
        assert asker.find_form(None) == (LOGPROBS, None)
        assert api.asked[0]["messages"] == [{"role": "user", "content": "x"}]
        assert (api.asked[0]["max_tokens"], api.asked[0]["temperature"]) == (1, 0)
        assert set(api.keys) == {"Bearer key"}

    def test_fewer_are_asked_for_where_there_is_a_limit(self, api, asker):
        api.most = 5
        assert asker.find_form(None) == (Form(endpoint="chat", top=5), None)

    def test_completions_are_asked_where_chats_have_none(self, api, asker):
        api.refuses = lambda path, body: refuse(404, "no chats") if "chat" in path else None
        form, note = asker.find_form(None)
        assert (form, note) == (Form(endpoint="completions", top=20), None)
        assert asker.logprobs(form, "x")["No"] == -1.5

    def test_a_server_without_logprobs_gives_texts_with_a_note(self, api, asker):
        api.refuses = no_logprobs
        form, note = asker.find_form(None)
        assert form == Form(endpoint="chat", seeded=True)
        assert note == "logprobs are not given here"

    def test_a_key_without_the_scope_of_logprobs_gives_texts_too(self, api, asker):
        api.refuses = lambda path, body: (
            refuse(403, "This key lacks model:logprobs.", "insufficient_scope")
            if body.get("logprobs")
            else None
        )
        form, note = asker.find_form(None)
        assert (form.method, note) == ("text", "This key lacks model:logprobs.")

    def test_logprobs_that_are_left_out_without_a_word_are_noticed(self, api, asker):
        api.silent = True
        form, note = asker.find_form(None)
        assert form.method == "text"
        assert "without logprobs" in note

    def test_a_seed_that_is_refused_is_left_out(self, api, asker):
        api.refuses = lambda path, body: refuse(400, "no seeds") if "seed" in body else None
        assert asker.find_form("text") == (Form(endpoint="chat"), None)
        asker.text(Form(endpoint="chat"), "x", 3, seed=4)
        assert "seed" not in api.asked[-1]

    def test_the_newer_name_of_the_limit_is_taken(self, api, asker):
        api.refuses = lambda path, body: (
            refuse(400, "Use 'max_completion_tokens' instead.") if "max_tokens" in body else None
        )
        form, _ = asker.find_form(None)
        assert form.limit == "max_completion_tokens"
        assert api.asked[-1]["max_completion_tokens"] == 1

    def test_logprobs_that_were_insisted_on_are_an_error_where_there_are_none(self, api, asker):
        api.refuses = no_logprobs
        with pytest.raises(InvalidRequest, match=r"not given here.*Leave --method out") as caught:
            asker.find_form("logprobs")
        assert caught.value.param == "method"

    def test_a_server_that_takes_nothing_says_why(self, api, asker):
        api.refuses = lambda path, body: refuse(400, "not today")
        with pytest.raises(InvalidRequest, match="takes none of our requests: not today"):
            asker.find_form(None)

    def test_an_unknown_model_is_named_with_those_that_there_are(self, api):
        asker = make_asker(api, model="nobody")
        with pytest.raises(NotFound, match="no model 'nobody'; it lists some-model, other"):
            asker.find_form(None)
        assert asker.requests == 1

    @pytest.mark.parametrize(
        ("reply", "kind"),
        [
            (refuse(401, "Incorrect API key provided"), Unauthenticated),
            (httpx2.Response(401, text="<html>who?"), Unauthenticated),
            (httpx2.Response(200, text="<html>hello"), UnexpectedReply),
            (httpx2.Response(200, json={"choices": []}), UnexpectedReply),
            (httpx2.Response(200, json=[1]), UnexpectedReply),
        ],
        ids=["key", "key, no JSON", "no JSON", "no choice", "no object"],
    )
    def test_what_no_form_mends_ends_it_at_once(self, api, asker, reply, kind):
        api.then = lambda number: reply
        with pytest.raises(kind):
            asker.find_form(None)
        assert len(api.asked) == 1


class TestPace:
    """Waiting where a server asks for it, and not for ever."""

    def test_a_server_is_waited_for_as_long_as_it_says(self, api, waits):
        told = []
        asker = make_asker(api, waits, say=told.append)
        busy = refuse(429, "Slow down.", "rate_limit_exceeded", **{"retry-after": "7"})
        api.then = lambda number: busy if number <= 2 else None
        assert asker.logprobs(LOGPROBS, "x")
        assert waits == [7, 7]
        assert told == ["Slow down. Trying again in 7 s."] * 2
        assert asker.requests == 3

    def test_it_is_not_asked_for_ever(self, api, asker, waits):
        api.then = lambda number: refuse(429, "Slow down.", **{"retry-after": "1"})
        with pytest.raises(RateLimited):
            asker.logprobs(LOGPROBS, "x")
        assert (asker.requests, len(waits)) == (TRIES, TRIES - 1)

    @pytest.mark.parametrize(
        "reply",
        [
            refuse(429, "You are out of credit.", "insufficient_quota"),
            refuse(429, "Tomorrow.", **{"retry-after": "86400"}),
        ],
        ids=["quota", "a day"],
    )
    def test_what_waiting_does_not_mend_is_not_waited_for(self, api, asker, waits, reply):
        api.then = lambda number: reply
        with pytest.raises(RateLimited):
            asker.logprobs(LOGPROBS, "x")
        assert (asker.requests, waits) == (1, [])

    def test_a_server_that_stumbles_is_asked_again(self, api, asker, waits):
        api.then = lambda number: httpx2.Response(502, text="bad gateway") if number == 1 else None
        assert asker.logprobs(LOGPROBS, "x")
        assert len(waits) == 1

    def test_a_server_that_keeps_failing_is_given_up(self, api, asker):
        api.then = lambda number: httpx2.Response(500, text="oops")
        with pytest.raises(EngineUnavailable, match="500"):
            asker.logprobs(LOGPROBS, "x")
        assert asker.requests == TRIES

    def test_a_connection_that_breaks_is_tried_again_after_longer_and_longer(self, api, asker, waits):
        def gone(number):
            raise httpx2.ConnectError("refused")

        api.then = gone
        with pytest.raises(ServerUnreachable):
            asker.logprobs(LOGPROBS, "x")
        assert waits == [1, 2, 4, 8]

    def test_rounds_are_spread_as_asked(self, api, asker, waits):
        asker.ask_rounds(4, ("x", "y"), lambda number, prompt: prompt, spread=3000)
        assert [round(wait, -2) for wait in waits] == [1000, 2000, 3000]

    def test_answers_come_in_the_order_of_prompts_however_many_are_in_flight(self, api):
        asker = make_asker(api, concurrency=4)
        prompts = ("a", "b", "c", "d", "e")
        rounds = asker.ask_rounds(3, prompts, lambda number, prompt: f"{number}{prompt}")
        assert rounds == [["0a", "1b", "2c", "3d", "4e"]] * 3


class TestReading:
    """What is taken of an answer."""

    def test_logprobs_of_a_chat(self, asker):
        assert asker.logprobs(LOGPROBS, "x") == {
            "Yes": -0.5,
            "No": -1.5,
            " no": -3.25,
            "bytes fc": -4.0,
            "bytes fb": -5.0,
        }

    def test_the_token_that_was_drawn_besides_is_left_out(self, asker):
        form = Form(endpoint="completions", top=4)
        assert set(asker.logprobs(form, "x")) == {token for token, _ in TOP[:4]}

    def test_tokens_and_what_the_server_says_of_itself_are_counted(self, asker):
        asker.logprobs(LOGPROBS, "x")
        asker.text(Form(endpoint="completions", seeded=True), "x", 4, seed=9)
        assert (asker.requests, asker.tokens) == (2, 14)
        assert asker.fingerprints == {"model some-model", "system_fingerprint fp_1"}

    def test_a_text_is_drawn_with_its_seed(self, api, asker):
        assert asker.text(Form(endpoint="chat", seeded=True), "x", 4, seed=9) == "An owl."
        assert {name: api.asked[-1][name] for name in ("max_tokens", "seed", "temperature")} == {
            "max_tokens": 4,
            "seed": 9,
            "temperature": 1,
        }

    def test_an_answer_that_says_nothing_is_an_empty_text(self, api, asker):
        api.said = None
        assert asker.text(Form(endpoint="chat"), "x", 4, seed=9) == ""


class TestBaseline:
    """Taking one, keeping it, looking later."""

    def test_nothing_changed(self, api, asker):
        made = take_baseline(asker, plan())
        assert (made.requests, made.tokens) == (12, 84)
        found = take_look(make_asker(api), made)
        assert (found.changed, found.verdict.p_value, found.requests, found.announced) == (False, 1, 6, None)
        assert [each.moved for each in found.prompts] == [(), ()]

    def test_a_last_bit_changed(self, api, asker):
        made = take_baseline(asker, plan())
        api.shift = 1e-15
        found = take_look(make_asker(api), made)
        assert found.changed
        assert found.verdict.p_value == pytest.approx(1 / 84)
        assert found.prompts[0].moved[0].distance == pytest.approx(1e-15, rel=0.3)

    def test_texts_changed(self, api, asker):
        made = take_baseline(asker, plan(Form(endpoint="chat", seeded=True), max_tokens=8))
        assert [body["seed"] for body in api.asked[:4]] == [0, 1, 0, 1]
        api.said = "An ox."
        found = take_look(make_asker(api), made)
        assert found.changed
        assert (found.prompts[0].before, found.prompts[0].after) == ("An owl.", "An ox.")

    def test_what_the_server_announces_is_told_and_is_no_alarm(self, api, asker):
        made = take_baseline(asker, plan())
        api.fingerprint = "fp_2"
        found = take_look(make_asker(api), made)
        assert not found.changed
        assert found.announced == (
            ("model some-model", "system_fingerprint fp_1"),
            ("model some-model", "system_fingerprint fp_2"),
        )

    def test_it_comes_back_from_its_file_to_the_bit(self, api, asker, tmp_path):
        api.shift = 0.1 + 0.2
        made = take_baseline(asker, plan()).after(
            Look(at="2026-01-01T00:00:00Z", p_value=1 / 3, changed=False)
        )
        path = tmp_path / "baseline.json"
        baselines.write(path, made)
        assert baselines.read(path) == made
        again = tmp_path / "again.json"
        baselines.write(again, baselines.read(path))
        assert path.read_bytes() == again.read_bytes()
        assert list(tmp_path.glob(".*")) == []

    def test_its_file_has_no_floats(self, asker, tmp_path):
        path = tmp_path / "baseline.json"
        baselines.write(path, take_baseline(asker, plan()))

        def no_float(digits):
            raise AssertionError(digits)

        kept = json.loads(path.read_bytes(), parse_float=no_float)
        assert kept["logprobs"][0][0]["Yes"] == "-0.5"
        assert kept["plan"]["alpha"] == "0.05"

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda kept: b"{", "is no baseline"),
            (lambda kept: json.dumps(kept | {"more": 1}).encode(), "more"),
            (lambda kept: json.dumps(kept | {"format": "urn:other"}).encode(), "format"),
            (lambda kept: json.dumps(kept | {"logprobs": kept["logprobs"][1:]}).encode(), "damaged"),
            (lambda kept: json.dumps(kept | {"texts": [["a", "b"]] * 6}).encode(), "damaged"),
            (lambda kept: json.dumps(kept | {"logprobs": [[{}, {}]] * 6}).encode(), "damaged"),
            (lambda kept: json.dumps(kept | {"logprobs": [[{"a": "NaN"}] * 2] * 6}).encode(), "logprobs"),
        ],
        ids=["no JSON", "a field more", "another format", "a round less", "both kinds", "empty", "no number"],
    )
    def test_a_damaged_file_is_refused(self, asker, tmp_path, change, said):
        path = tmp_path / "baseline.json"
        baselines.write(path, take_baseline(asker, plan()))
        path.write_bytes(change(json.loads(path.read_bytes())))
        with pytest.raises(InvalidRequest, match=said):
            baselines.read(path)

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(NotFound):
            baselines.read(tmp_path / "none.json")

    def test_a_folder_that_is_not_there(self, asker, tmp_path):
        made = take_baseline(asker, plan())
        with pytest.raises(InvalidRequest, match="cannot be written"):
            baselines.write(tmp_path / "none" / "baseline.json", made)

    def test_looks_are_spent(self, api, asker):
        made = take_baseline(asker, plan(looks=1))
        spent = made.after(take_look(make_asker(api), made).look)
        with pytest.raises(InvalidRequest, match="All 1 looks of this baseline are spent"):
            take_look(make_asker(api), spent)

    def test_another_model_is_not_compared(self, api, asker):
        made = take_baseline(asker, plan())
        with pytest.raises(InvalidRequest, match="of the model 'some-model', not 'other'"):
            take_look(make_asker(api, model="other"), made)

    @pytest.mark.parametrize(
        ("changes", "enough"),
        [
            ({"before": 20, "after": 6, "alpha": 0.001, "looks": 100}, True),
            ({"before": 20, "after": 6, "alpha": 0.001, "looks": 1000}, False),
            ({"before": 4, "after": 4, "alpha": 0.02, "looks": 1}, False),
            ({"before": 5, "after": 4, "alpha": 0.02, "looks": 1}, True),
        ],
        ids=["usual", "more looks", "mirrored", "enough"],
    )
    def test_a_test_that_could_never_find_anything_is_refused(self, changes, enough):
        if enough:
            plan(**changes).check()
        else:
            with pytest.raises(InvalidRequest, match="take more rounds, fewer looks, or a larger alpha"):
                plan(**changes).check()

    def test_the_usual_prompts_are_short(self):
        assert all(len(prompt) <= 3 for prompt in LOGPROB_PROMPTS)


def test_a_key_that_may_do_nothing_says_so(api, asker):
    api.then = lambda number: refuse(403, "This project is suspended.", "suspended")
    with pytest.raises((Forbidden, InvalidRequest), match="suspended"):
        asker.find_form(None)
