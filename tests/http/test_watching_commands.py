"""`transom watch` against the whole server, and against servers that are somebody else's."""

from __future__ import annotations

import json
from functools import partial

import httpx2
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.http.door import MODEL
from tests.http.live import Live
from tests.unit.client.watching_standin import URL, Api, no_logprobs, refuse
from transom.cli import output, watch
from transom.cli.main import app as transom_app

SMALL = ("--baseline-rounds", "8", "--rounds", "3", "--alpha", "0.1", "--looks", "5")
"""165 divisions, so that a test is quick; a look may spend 0.02."""


@pytest.fixture(scope="module")
def shared_live(tokenizer, tmp_path_factory):
    with Live(tmp_path_factory.mktemp("home"), tokenizer) as live:
        yield live


@pytest.fixture
def live(shared_live):
    yield shared_live
    shared_live.backend.knobs.lie_at = shared_live.backend.knobs.shade_at = None


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    for name in ("TRANSOM_BASE_URL", "TRANSOM_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    made = partial(Console, highlight=False, markup=False, emoji=False, soft_wrap=True, force_terminal=False)
    monkeypatch.setattr(output, "out", made())
    monkeypatch.setattr(output, "err", made(stderr=True))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "baseline.json"


@pytest.fixture
def api(monkeypatch):
    """Somebody else's server, in the place of the network; nobody waits for it."""
    api = Api()
    monkeypatch.setattr(
        watch,
        "_http",
        lambda connection: httpx2.Client(**connection.options(5), transport=httpx2.MockTransport(api)),
    )
    return api


@pytest.fixture
def waits(monkeypatch):
    """What happens while somebody waits, by the number of the wait."""
    then = {}
    count = iter(range(100))
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: then.get(next(count), lambda: None)())
    return then


def run(url, file, *arguments, model=MODEL):
    told = ("watch", url, "--model", model, "--baseline", str(file), *arguments)
    return CliRunner().invoke(transom_app, told, catch_exceptions=False)


def well(result):
    assert result.exit_code == 0, result.output
    return result.stdout


class TestAgainstTheServer:
    """With and without /v1, by logprobs and by texts."""

    @pytest.mark.parametrize("method", ["logprobs", "text"])
    def test_an_honest_server_is_not_accused_and_another_model_is_found(self, live, file, method):
        small = (*SMALL, "--method", method)
        assert f"8 rounds of {3 if method == 'logprobs' else 8} prompts, by {method}" in well(
            run(live.url, file, *small)
        )
        same = run(f"{live.url}/v1", file)
        assert "no change  p = 1" in well(same)
        assert "look 1 of 5" in same.stderr
        live.backend.knobs.lie_at = 0
        found = run(f"{live.url}/v1", file)
        assert found.exit_code == 1
        assert f"CHANGED  p = 0.00606, by {method}; changed if at most 0.02" in found.stdout
        assert "→" in found.stdout
        assert "a false alarm in any of them has a chance of at most 0.1" in found.stderr

    def test_a_last_bit_of_a_logprob_is_found(self, live, file):
        well(run(live.url, file, *SMALL))
        live.backend.knobs.shade_at = 0
        found = run(live.url, file, "--json")
        assert found.exit_code == 1
        told = json.loads(found.stdout)
        assert told["changed"]
        assert told["p_value"] == pytest.approx(1 / 165)
        assert told["statistic"] < 1e-5
        assert (told["look"], told["looks"], told["alpha_of_this_look"]) == (1, 5, 0.02)
        assert (told["requests"], told["divisions"], told["exact"]) == (9, 165, True)
        assert told["tokens"] > 9
        assert told["prompts"][0]["moved"][0].keys() == {"token", "before", "after"}

    def test_a_wrong_key_is_denied(self, live, file):
        denied = run(live.url, file, "--api-key", "tr_wrong")
        assert denied.exit_code == 4
        assert "TRANSOM_API_KEY" in denied.stderr
        assert not file.exists()

    def test_an_unknown_model_is_named(self, live, file):
        refused = run(live.url, file, model="nobody")
        assert refused.exit_code == 2
        assert f"no model 'nobody'; it lists {MODEL}" in refused.stderr

    def test_what_the_server_says_of_itself_is_kept(self, live, file):
        well(run(live.url, file, *SMALL))
        kept = json.loads(file.read_bytes())
        assert kept["fingerprints"] == [
            f"model {MODEL}",
            f"system_fingerprint {live.backend.served.deployment.digest}",
        ]


class TestAgainstOthers:
    """What may go wrong elsewhere."""

    def test_texts_are_compared_with_a_note_where_there_are_no_logprobs(self, api, file):
        api.refuses = no_logprobs
        taken = run(URL, file, *SMALL, model="some-model")
        assert "by text" in well(taken)
        assert "No logprobs here: logprobs are not given here" in taken.stderr
        api.said = "An owl and an ox."
        found = run(URL, file, model="some-model")
        assert found.exit_code == 1
        assert 'from character 6: "." → " and an ox."' in found.stdout

    def test_logprobs_that_were_insisted_on_end_it(self, api, file):
        api.refuses = no_logprobs
        refused = run(URL, file, "--method", "logprobs", model="some-model")
        assert refused.exit_code == 2
        assert "Leave --method out" in refused.stderr

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--alpha", "0.2"), "taken with --alpha 0.1, not 0.2"),
            (("--looks", "6"), "taken with --looks 5, not 6"),
            (("--rounds", "4"), "taken with --rounds 3, not 4"),
            (("--baseline-rounds", "9"), "taken with --baseline-rounds 8, not 9"),
            (("--method", "text"), "taken with --method logprobs, not text"),
            (("--prompt", "y"), "taken with --prompt 'x' --prompt '1' --prompt '?', not 'y'"),
            (("--tolerance", "0.1"), "taken with --tolerance 0.0, not 0.1"),
        ],
        ids=lambda value: value[0] if isinstance(value, tuple) else "",
    )
    def test_a_baseline_that_was_taken_otherwise_is_not_compared(self, api, file, arguments, said):
        well(run(URL, file, *SMALL, model="some-model"))
        asked = len(api.asked)
        refused = run(URL, file, *arguments, model="some-model")
        assert refused.exit_code == 2
        assert said in refused.stderr
        assert len(api.asked) == asked

    @pytest.mark.parametrize(
        ("url", "model", "said"),
        [
            ("http://other.example/v1", "some-model", "of the address 'http://api.example'"),
            (URL, "other", "of the model 'some-model', not 'other'"),
        ],
        ids=["address", "model"],
    )
    def test_a_baseline_of_something_else_is_not_compared(self, api, file, url, model, said):
        well(run(URL, file, *SMALL, model="some-model"))
        refused = run(url, file, model=model)
        assert refused.exit_code == 2
        assert said in refused.stderr

    def test_looks_end_however_they_came_out(self, api, file):
        well(run(URL, file, *SMALL, model="some-model"))
        for look in range(5):
            done = run(URL, file, model="some-model")
            assert "no change" in well(done)
            assert ("That was the last look" in done.stderr) == (look == 4)
        spent = run(URL, file, model="some-model")
        assert spent.exit_code == 2
        assert "All 5 looks of this baseline are spent" in spent.stderr

    def test_a_look_that_somebody_else_took_meanwhile_counts_too(self, api, file):
        well(run(URL, file, *SMALL, model="some-model"))
        before = file.read_bytes()
        well(run(URL, file, model="some-model"))
        after, asked = file.read_bytes(), len(api.asked)
        file.write_bytes(before)

        def other(number):
            if number == asked + 1:
                file.write_bytes(after)

        api.then = other
        well(run(URL, file, model="some-model"))
        assert len(json.loads(file.read_bytes())["looks"]) == 2

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--looks", "1000"), "take more rounds, fewer looks, or a larger alpha"),
            (("--alpha", "0"), "--alpha: Input should be greater than 0"),
            (("--rounds", "0"), "--rounds: Input should be greater than or equal to 1"),
            (("--method", "guess"), "guess"),
        ],
        ids=["looks", "alpha", "rounds", "method"],
    )
    def test_options_that_cannot_be(self, api, file, arguments, said):
        refused = run(URL, file, *arguments, model="some-model")
        assert refused.exit_code == 2
        assert said in refused.stderr
        assert not file.exists()

    def test_a_file_of_something_else_is_left_alone(self, api, file):
        file.write_text("my notes")
        refused = run(URL, file, model="some-model")
        assert refused.exit_code == 2
        assert "is no baseline of transom watch" in refused.stderr
        assert file.read_text() == "my notes"

    def test_nobody_is_there(self, file, waits):
        gone = run("http://127.0.0.1:9/v1", file, "--rounds", "3")
        assert gone.exit_code == 3

    @pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
    def test_it_goes_on_until_something_changed(self, api, file, waits, as_json):
        def change():
            api.shift = 1e-9

        waits[2] = change
        more = ("--json",) if as_json else ()
        found = run(URL, file, *SMALL, "--every", "60", *more, model="some-model")
        assert found.exit_code == 1
        lines = found.stdout.splitlines()
        if as_json:
            assert [json.loads(line).get("changed") for line in lines] == [None, False, False, True]
        else:
            assert [line.split("  ")[0] for line in lines if "p = " in line] == [
                "no change",
                "no change",
                "CHANGED",
            ]

    def test_going_on_a_server_that_is_away_is_waited_for(self, api, file, waits):
        well(run(URL, file, *SMALL, model="some-model"))

        def back():
            api.then = lambda number: None
            api.shift = 1.0

        api.then = lambda number: refuse(429, "Come back later.", **{"retry-after": "9999"})
        waits[0] = back
        found = run(URL, file, "--every", "60", model="some-model")
        assert found.exit_code == 1
        assert "Come back later." in found.stderr
        assert "CHANGED" in found.stdout

    def test_interrupted_it_ends_well(self, api, file, waits):
        def interrupt():
            raise KeyboardInterrupt

        waits[1] = interrupt
        assert "no change" in well(run(URL, file, *SMALL, "--every", "60", model="some-model"))


class TestKeys:
    """Which key goes where."""

    @pytest.fixture
    def sent(self, api, file):
        def sent(url, *arguments):
            run(url, file, *SMALL, *arguments, model="some-model")
            return set(api.keys)

        return sent

    def test_none(self, sent):
        assert sent(URL) == {None}

    def test_ours(self, sent, monkeypatch):
        monkeypatch.setenv("TRANSOM_API_KEY", "tr_ours")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-theirs")
        assert sent(URL) == {"Bearer tr_ours"}

    def test_openais_goes_to_openai(self, sent, monkeypatch):
        monkeypatch.setenv("TRANSOM_API_KEY", "tr_ours")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-theirs")
        assert sent("https://api.openai.com/v1") == {"Bearer sk-theirs"}

    def test_openais_goes_where_it_is_paired_with_an_address(self, sent, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-theirs")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{URL}/")
        assert sent(URL) == {"Bearer sk-theirs"}

    def test_openais_goes_to_nobody_else(self, sent, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-theirs")
        assert sent(URL) == {None}

    def test_the_option_stands_above_all(self, sent, monkeypatch):
        monkeypatch.setenv("TRANSOM_API_KEY", "tr_ours")
        assert sent(URL, "--api-key", "tr_given") == {"Bearer tr_given"}
