"""The preamble of conversations: with it a prompt has the ids that it has without, or it is not used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.tiny import VOCAB_SIZE, make_tokenizer
from transom.backends import preamble
from transom.backends.tokenizer import LocalTokenizer

SYSTEM = "<|im_start|>system\nYou are a window in the house, and you let the light in.<|im_end|>"
NEWLINE = "{{ '\\n' }}"
TURN = "<|im_start|>{{ message['role'] }}" + NEWLINE + "{{ message['content'] }}<|im_end|>"
OWN = "{% if messages[0]['role'] != 'system' %}" + SYSTEM.replace("\n", NEWLINE) + NEWLINE + "{% endif %}"
TEMPLATE = OWN + "{% for message in messages %}" + TURN + "{% endfor %}<|im_start|>assistant" + NEWLINE
CONVERSATIONS = [SYSTEM + f"\n<|im_start|>user\n{said}<|im_end|>" for said in ("Hello", "Why?")]
PARTS = ["<|im_start|>", "<|im_end|>", "<|im_", "|>", "\n", " ", "light", "é", "\U0001f511", SYSTEM]


@pytest.fixture(scope="module")
def raw() -> Tokenizer:
    return Tokenizer.from_str(make_tokenizer().backend_tokenizer.to_str())


@pytest.fixture
def own(raw: Tokenizer) -> Tokenizer:
    """One that a test may change."""
    return Tokenizer.from_str(raw.to_str())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> LocalTokenizer:
    folder = tmp_path_factory.mktemp("root")
    made = make_tokenizer()
    made.chat_template = TEMPLATE
    made.save_pretrained(folder)
    config = {"vocab_size": VOCAB_SIZE, "eos_token_id": 2, "max_position_embeddings": 512}
    (Path(folder) / "config.json").write_text(json.dumps(config))
    return LocalTokenizer(folder)


def test_it_ends_with_the_last_token_that_all_conversations_share(raw: Tokenizer) -> None:
    found = preamble.find(raw, CONVERSATIONS)
    assert found is not None
    assert found.text == SYSTEM + "\n<|im_start|>"


def test_conversations_that_share_little_have_none(raw: Tokenizer) -> None:
    assert preamble.find(raw, ["<|im_start|>user\nHello", "<|im_start|>user\nWhy?"]) is None
    assert preamble.find(raw, ["Hello", "Why?"]) is None
    assert preamble.find(raw, ["no token is in it, and all of it is shared"] * 2) is None


@pytest.mark.parametrize(
    "token",
    [
        AddedToken("<|im_end|>", special=True, rstrip=True, normalized=False),
        AddedToken("\n<|im_start|>", special=True, normalized=False),
        AddedToken(" light", lstrip=True, normalized=True),
    ],
    ids=["strips", "holds another", "strips elsewhere"],
)
def test_added_tokens_that_look_around_them_are_left_to_the_library(
    own: Tokenizer, token: AddedToken
) -> None:
    own.add_special_tokens([token]) if token.special else own.add_tokens([token])
    found = preamble.find(own, CONVERSATIONS)
    whole = own.encode(CONVERSATIONS[0], add_special_tokens=False).ids
    assert found is None or whole[: len(found.token_ids)] == found.token_ids


@pytest.mark.parametrize(
    "change",
    [
        lambda own: setattr(own, "pre_tokenizer", pre_tokenizers.Metaspace(prepend_scheme="first")),
        lambda own: setattr(own, "normalizer", normalizers.Prepend("_")),
        lambda own: setattr(own, "encode_special_tokens", True),
        lambda own: setattr(own, "model", models.WordLevel({"a": 0}, unk_token="a")),
    ],
    ids=["metaspace", "prepend", "special tokens as text", "words"],
)
def test_a_tokenizer_of_which_it_is_not_certain_is_left_to_the_library(own: Tokenizer, change) -> None:
    change(own)
    assert preamble.find(own, CONVERSATIONS) is None


@given(after=st.one_of(st.text(), st.lists(st.sampled_from(PARTS)).map("".join)))
def test_whatever_comes_after_it_a_prompt_has_the_same_ids(tokenizer: LocalTokenizer, after: str) -> None:
    known = tokenizer._preamble
    assert known is not None
    text = known.text + after
    assert tokenizer.encode(text, add_special_tokens=False) == (
        tokenizer._tokenizer.encode(text, add_special_tokens=False).ids
    )


def test_conversations_are_encoded_as_ever_with_it_and_without(tokenizer: LocalTokenizer) -> None:
    for messages in (
        [{"role": "user", "content": "Is there a light?"}],
        [{"role": "system", "content": "No."}, {"role": "user", "content": "Is there?"}],
    ):
        text = tokenizer.render(messages)
        ids = tokenizer._tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text, add_special_tokens=False) == ids
    # What the library would add around a text is left to it too.
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    text = tokenizer.render([{"role": "user", "content": "Is there a light?"}])
    assert tokenizer.encode(text) == tokenizer._tokenizer.encode(text).ids
