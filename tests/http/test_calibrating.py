"""`transom calibrate`: one server answers, another judges, and what honest answers show is a document."""

from __future__ import annotations

import asyncio
import json

import pytest
from typer.testing import CliRunner

from tests.http.door import MODEL, settings
from tests.http.live import Live
from transom.app import open_database, open_office
from transom.cli.main import app
from transom.schema.calibrations import LEAST_TOKENS, Calibration
from transom.schema.deployment import Deployment, ServedModel

QUICK = pytest.mark.timeout(600)


class Servers:
    """Two servers of one model, the second on another profile; keys of both."""

    def __init__(self, folder, tokenizer):
        self.lives, self.keys = [], []
        for name in ("one", "other"):
            home = folder / name
            home.mkdir()
            own = settings(home)
            database = open_database(own)
            self.keys.append(asyncio.run(open_office(own, database, None).keys.create()).text)
            database.close()
            self.lives.append(Live(home, tokenizer))
        served = self.lives[1].backend.served
        before = served.deployment
        profile = before.profile.model_copy(update={"dtype": "bfloat16"})
        after = Deployment(model=before.model, profile=profile, policy=before.policy)
        self.lives[1].backend.served = ServedModel(name=MODEL, deployment=after, created=served.created)

    def calibrate(self, *options, model=MODEL, order=(0, 1)):
        one, other = (self.lives[number].url for number in order)
        keys = ("--key", self.keys[order[0]], "--other-key", self.keys[order[1]])
        return CliRunner().invoke(app, ["calibrate", one, other, "--model", model, *keys, *options])


@pytest.fixture(scope="module")
def servers(tmp_path_factory, tokenizer):
    found = Servers(tmp_path_factory.mktemp("servers"), tokenizer)
    with found.lives[0], found.lives[1]:
        yield found


@QUICK
def test_what_honest_answers_show_is_a_document(servers, tmp_path):
    servers.lives[1].backend.knobs.shade_at = 0
    done = servers.calibrate("--out", str(tmp_path / "calibration.json"))
    servers.lives[1].backend.knobs.shade_at = None
    assert done.exit_code == 0, done.output
    content = (tmp_path / "calibration.json").read_bytes()
    found = Calibration.model_validate_json(content)
    assert found.content == content
    deployments = [live.backend.served.deployment.digest for live in servers.lives]
    assert [found.answered, found.judged] == deployments
    assert found.tokens >= LEAST_TOKENS
    assert (found.differing, float(found.margin.mean)) == (0, 0.0)
    # Each logprob was a bit off.
    assert 0 < float(found.logprob.mean) < 1e-4
    assert f"tokens of {LEAST_TOKENS}" in done.stderr


def test_the_same_deployment_needs_no_calibration(servers):
    done = servers.calibrate(order=(0, 0))
    assert done.exit_code == 2
    assert "the same to the bit" in done.stderr


def test_a_model_that_one_of_both_has_not_is_a_clear_error(servers):
    done = servers.calibrate(model="nobody")
    assert done.exit_code == 2
    assert "'nobody' is served by one of both at most" in done.stderr


def test_too_few_tokens_are_refused(servers):
    done = servers.calibrate("--tokens", "100")
    assert done.exit_code == 2
    assert json.dumps(LEAST_TOKENS) in done.stderr
