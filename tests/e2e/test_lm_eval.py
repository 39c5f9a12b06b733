"""lm-eval runs unmodified, and scores what the plain model scores."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import tokenizers
import torch

from tests.conftest import REAL_MODEL
from tests.e2e.clients import run_client
from tests.engine.drive import PlainModel

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.timeout(900)]

NAMES = ("transom_choices", "transom_texts", "transom_words")


@dataclass(frozen=True)
class Report:
    """What lm-eval logged of one run: the samples of each task, and its results."""

    output: str
    samples: dict[str, list[dict]]
    results: dict

    def answers(self, task: str) -> list[tuple[list[str], list[str]]]:
        """(arguments, answer as lm-eval logs it) of every request of a task."""
        return [
            (list(arguments.values()), answer)
            for sample in self.samples[task]
            for arguments, (answer,) in zip(sample["arguments"].values(), sample["resps"], strict=True)
        ]


def evaluate(folder: Path, model_args: dict[str, object], *options: str, key: str) -> Report:
    cache, written = folder / "empty-cache", folder / "written"
    cache.mkdir()
    output = run_client(
        "lm_eval",
        *("run", "--model", "local-completions"),
        *("--model_args", ",".join(f"{name}={value}" for name, value in model_args.items())),
        *("--include_path", ".", "--tasks", ",".join(NAMES)),
        *("--log_samples", "--output_path", str(written)),
        *options,
        HOME=str(folder),
        HF_HOME=str(cache),
        OPENAI_API_KEY=key,
    )
    samples = {}
    for name in NAMES:
        (file,) = written.glob(f"*/samples_{name}_*.jsonl")
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        samples[name] = sorted(lines, key=lambda line: line["doc_id"])
    (file,) = written.glob("*/results_*.json")
    return Report(output, samples, json.loads(file.read_text())["results"])


@pytest.fixture(scope="module")
def with_local_tokenizer(server, key, home, tmp_path_factory) -> Report:
    """Requests in batches of eight prompts."""
    arguments = {
        "model": REAL_MODEL,
        "base_url": f"{server.url}/v1/completions",
        "tokenizer": home / "models" / REAL_MODEL,
        "tokenizer_backend": "huggingface",
    }
    return evaluate(tmp_path_factory.mktemp("local"), arguments, "--batch_size", "8", key=key)


@pytest.fixture(scope="module")
def with_no_tokenizer(server, key, tmp_path_factory) -> Report:
    """Requests one by one, eight at a time; the server tokenizes."""
    arguments = {
        "model": REAL_MODEL,
        "base_url": f"{server.url}/v1/completions",
        "auth_token": key,
        "num_concurrent": 8,
    }
    return evaluate(tmp_path_factory.mktemp("remote"), arguments, key=key)


@dataclass(frozen=True)
class Plain:
    """The model as transformers runs it: eager attention, float32, one text at a time."""

    model: PlainModel
    tokenizer: tokenizers.Tokenizer

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def score(self, context: list[int], continuation: list[int]) -> tuple[float, bool]:
        """Log-likelihood of a continuation, and whether greedy decoding would have written it."""
        logprobs = self.model.logprobs([*context, *continuation])[len(context) - 1 : -1]
        wanted = torch.tensor(continuation)
        chosen = logprobs.gather(1, wanted[:, None])
        return float(chosen.double().sum()), bool((logprobs.argmax(-1) == wanted).all())


@pytest.fixture(scope="module")
def plain(home) -> Plain:
    root = home / "models" / REAL_MODEL
    return Plain(PlainModel(root), tokenizers.Tokenizer.from_file(str(root / "tokenizer.json")))


def test_every_loglikelihood_and_greedy_flag_is_the_plain_models(with_local_tokenizer, plain):
    answers = with_local_tokenizer.answers("transom_choices")
    assert len(answers) == 36
    flags = []
    for (context, continuation), (loglikelihood, is_greedy) in answers:
        prompt = plain.encode(context)
        both = plain.encode(context + continuation)
        assert both[: len(prompt)] == prompt
        expected, greedy = plain.score(prompt, both[len(prompt) :])
        assert float(loglikelihood) == pytest.approx(expected, abs=1e-3, rel=0)
        assert is_greedy == str(greedy)
        flags.append(greedy)
    assert flags.count(True) == 3


def test_every_text_has_the_plain_models_likelihood(with_local_tokenizer, plain):
    answers = with_local_tokenizer.answers("transom_texts")
    assert len(answers) == 3
    # lm-eval puts the beginning-of-sequence token before a whole text.
    (prefix,) = plain.encode("<|im_start|>")
    for (text,), loglikelihood in answers:
        expected, _ = plain.score([prefix], plain.encode(text))
        assert float(loglikelihood) == pytest.approx(expected, abs=1e-3, rel=0)


def test_free_answers_are_the_plain_models_greedy_ones(with_local_tokenizer, plain):
    answers = with_local_tokenizer.answers("transom_words")
    assert len(answers) == 4
    for (context, _), answer in answers:
        ids = plain.model.greedy(plain.encode(context), 12)
        expected = plain.tokenizer.decode(ids, skip_special_tokens=False)
        for stop in ("\n", "<|im_end|>"):
            expected = expected.partition(stop)[0]
        assert answer == expected


def test_without_a_tokenizer_lm_eval_asks_the_server_and_scores_the_same_to_the_bit(
    with_local_tokenizer, with_no_tokenizer
):
    assert "Using remote tokenizer backend" in with_no_tokenizer.output
    for name in NAMES:
        assert with_no_tokenizer.answers(name) == with_local_tokenizer.answers(name)
    assert with_no_tokenizer.results == with_local_tokenizer.results


def test_what_lm_eval_asked_is_on_record_and_replays_exactly(with_local_tokenizer, http):
    newest, *_ = http.get("/v1/records", params={"limit": 1}).json()["data"]
    assert newest["status"] == "complete"
    report = http.post(f"/v1/records/{newest['id']}/replay").json()
    assert report["level"] == "EXACT"
