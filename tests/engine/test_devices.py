"""The path for devices that our kernels do not run on, tried on the processor: right, and no more."""

from __future__ import annotations

import pytest
import torch

from tests.engine.drive import load_tiny
from tests.tiny import CONFIGS
from transom.engine import loader
from transom.engine.attention_torch import TorchAttention
from transom.errors import ModelRefused
from transom.schema.generation import SamplingParams, SequenceRequest

FAMILIES = sorted(CONFIGS)


@pytest.fixture
def by_torch(monkeypatch):
    """As if the processor were a device without kernels of ours."""
    monkeypatch.setattr(loader, "_has_kernels", lambda device: False)


def answers(engine, prompts):
    """Tokens and logprobs of greedy answers to all prompts at once."""
    for index, prompt in enumerate(prompts):
        sampling = SamplingParams(seed=0, temperature=0, max_tokens=12, ignore_eos=True, prompt_logprobs=1)
        engine.submit(
            SequenceRequest(sequence_id=str(index), prompt_token_ids=tuple(prompt), sampling=sampling)
        )
    found = {str(index): ([], []) for index in range(len(prompts))}
    while not engine.idle:
        for output in engine.step():
            tokens, scores = found[output.sequence_id]
            tokens += output.tokens
            scores += [score for score in output.prompt_logprobs or () if score is not None]
    return [found[str(index)] for index in range(len(prompts))]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", [7, 512], ids=["small steps", "large steps"])
def test_answers_are_those_of_the_kernels(family, rows, tiny_root, monkeypatch):
    root = tiny_root(family)
    ours = load_tiny(root)
    monkeypatch.setattr(loader, "_has_kernels", lambda device: False)
    theirs = load_tiny(root, max_num_batched_tokens=rows)
    assert isinstance(theirs.engine._runner._attention, TorchAttention)
    common = list(range(3, 36))
    prompts = [[5], common, [*common, 7], list(range(60, 5, -1)), common[:20]]
    for (tokens, scores), (expected, expected_scores) in zip(
        answers(theirs.engine, prompts), answers(ours.engine, prompts), strict=True
    ):
        assert [token.token_id for token in tokens] == [token.token_id for token in expected]
        for found, wanted in zip([*tokens, *scores], [*expected, *expected_scores], strict=True):
            assert found.logprob == pytest.approx(wanted.logprob, abs=1e-4)


def test_the_profile_says_that_torch_computes(tiny_root, by_torch):
    profile = load_tiny(tiny_root("llama")).profile
    assert (profile["linear"], profile["attention"], profile["fusion"]) == (
        "torch",
        "torch/gathered/v1",
        "none",
    )


def test_bfloat16_runs_there_too(tiny_root, by_torch):
    engine = load_tiny(tiny_root("llama"), dtype="bfloat16").engine
    (tokens, _scores), *_ = answers(engine, [[3, 4, 5]])
    assert len(tokens) == 12


@pytest.mark.parametrize("device", ["no such thing", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device, tiny_root):
    with pytest.raises(ModelRefused, match="cannot be used here"):
        load_tiny(tiny_root("llama"), device=device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_on_cuda_are_those_of_the_processor(family, tiny_root):
    root = tiny_root(family)
    prompts = [[5], list(range(3, 36)), list(range(60, 5, -1))]
    found, expected = (answers(load_tiny(root, device=device).engine, prompts) for device in ("cuda", "cpu"))
    for (tokens, _), (wanted, _) in zip(found, expected, strict=True):
        assert [token.token_id for token in tokens] == [token.token_id for token in wanted]
