"""The tokenizer without torch: exact round trips, spellings of single tokens, rendered conversations."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer

from tests.tiny import CHAT_TEMPLATE, VOCAB_SIZE, make_tokenizer
from transom.backends.tokenizer import LocalTokenizer
from transom.errors import InvalidRequest, ModelRefused

CONFIG = {"vocab_size": VOCAB_SIZE + 2, "eos_token_id": 2, "max_position_embeddings": 512}
HELLO = [{"role": "user", "content": "Is there a light in the window?"}]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture(scope="module")
def tokenizer(root: Path) -> LocalTokenizer:
    return LocalTokenizer(root)


@pytest.fixture
def sentencepiece(tmp_path: Path) -> LocalTokenizer:
    """Spaces as U+2581 and bytes as <0xE2>, as in Llama 2 and Gemma."""
    vocab = {"<unk>": 0, "</s>": 1, "\u2581": 2, "\u2581\u2581": 3, "a": 4, "\u2581a": 5}
    vocab |= {f"<0x{byte:02X}>": 6 + byte for byte in range(256)}
    merges = [("\u2581", "\u2581"), ("\u2581", "a")]
    raw = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>"))
    raw.normalizer = normalizers.Replace(" ", "\u2581")
    raw.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    raw.add_special_tokens([AddedToken("</s>", special=True)])
    raw.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"text_config": {"vocab_size": 262, "eos_token_id": [1, 4]}}')
    return LocalTokenizer(tmp_path)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "wizard", "content": "hi"}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": ["a", "list"]}],
        [{"role": "user", "content": 7}],
        [{"content": "no role"}],
    ],
)
def test_messages_that_the_template_refuses_are_the_callers_error(
    tokenizer: LocalTokenizer, messages: list[dict[str, object]]
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        tokenizer.render(messages)
    assert refusal.value.param == "messages"


def test_the_templates_own_words_reach_the_caller(tokenizer: LocalTokenizer) -> None:
    with pytest.raises(InvalidRequest, match="unknown role wizard"):
        tokenizer.render([{"role": "wizard", "content": "hi"}])


def test_a_model_without_a_template_refuses_conversations(sentencepiece: LocalTokenizer) -> None:
    assert not sentencepiece.has_chat_template
    with pytest.raises(InvalidRequest, match="no chat template"):
        sentencepiece.render(HELLO)


def test_a_template_that_does_not_compile_refuses_the_model(root: Path, tmp_path: Path) -> None:
    broken = _copy(root, tmp_path)
    (broken / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(ModelRefused, match="no valid template"):
        LocalTokenizer(broken)


@pytest.mark.parametrize("content", ["", "{}", '{"model": {"type": "Nothing"}}'])
def test_a_broken_tokenizer_file_refuses_the_model(root: Path, tmp_path: Path, content: str) -> None:
    broken = _copy(root, tmp_path)
    (broken / "tokenizer.json").write_text(content)
    with pytest.raises(ModelRefused, match=r"tokenizer\.json"):
        LocalTokenizer(broken)


def test_a_missing_tokenizer_file_refuses_the_model(root: Path, tmp_path: Path) -> None:
    broken = _copy(root, tmp_path)
    (broken / "tokenizer.json").unlink()
    with pytest.raises(ModelRefused, match=r"tokenizer\.json"):
        LocalTokenizer(broken)


def test_a_decoder_that_cannot_spell_single_tokens_refuses_the_model(root: Path, tmp_path: Path) -> None:
    odd = _copy(root, tmp_path)
    words = json.loads((odd / "tokenizer.json").read_text())
    words["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    (odd / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(ModelRefused, match="decoder"):
        LocalTokenizer(odd)


def test_a_config_without_vocab_size_refuses_the_model(root: Path, tmp_path: Path) -> None:
    broken = _copy(root, tmp_path)
    (broken / "config.json").write_text("{}")
    with pytest.raises(ModelRefused, match="vocab_size"):
        LocalTokenizer(broken)


@pytest.mark.parametrize("token_id", [-1, VOCAB_SIZE + 2, 2**40])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer: LocalTokenizer, token_id: int) -> None:
    with pytest.raises(InvalidRequest, match="outside the vocabulary"):
        tokenizer.token_text(token_id)


def test_loading_it_does_not_load_torch() -> None:
    code = (
        "import sys, transom.backends.tokenizer, transom.backends.library; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rendering_equals_transformers(root: Path, tokenizer: LocalTokenizer) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *HELLO, {"role": "assistant", "content": "Yes."}]
    reference = AutoTokenizer.from_pretrained(root)
    expected = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.render(messages) == expected
    assert expected.endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_a_null_field_of_a_message_counts_as_left_out(tokenizer: LocalTokenizer) -> None:
    assert tokenizer.render([{**HELLO[0], "name": None}]) == tokenizer.render(HELLO)


def test_a_field_that_the_template_does_not_read_changes_nothing(tokenizer: LocalTokenizer) -> None:
    assert tokenizer.render([{**HELLO[0], "reasoning": "A window is a hole."}]) == tokenizer.render(HELLO)


@given(st.text(max_size=60))
@settings(deadline=None)
def test_token_bytes_join_to_the_text(tokenizer: LocalTokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert tokenizer.decode(ids) == text


@given(st.lists(st.integers(3, VOCAB_SIZE - 1), max_size=30))
@settings(deadline=None)
def test_a_stream_says_what_decoding_at_once_says(tokenizer: LocalTokenizer, ids: list[int]) -> None:
    stream = tokenizer.stream([])
    assert "".join(map(stream.step, ids)) + stream.flush() == tokenizer.decode(ids)


def test_a_stream_holds_a_character_back_until_it_is_whole(tokenizer: LocalTokenizer) -> None:
    first, second, third = tokenizer.encode("\u20ac")
    stream = tokenizer.stream([])
    assert [stream.step(first), stream.step(second), stream.step(third)] == ["", "", "\u20ac"]
    assert stream.flush() == ""
    continued = tokenizer.stream([5, 6, 7, 8, first, second])
    assert continued.step(third) == "\u20ac"


def test_a_stream_gives_special_tokens_no_text(tokenizer: LocalTokenizer) -> None:
    stream = tokenizer.stream([])
    assert stream.step(2) + stream.flush() == ""


def test_tokens_are_spelled_alone(tokenizer: LocalTokenizer) -> None:
    assert tokenizer.token_text(2) == "<|im_end|>"
    assert tokenizer.token_text(tokenizer.encode(" a")[0]) == " a"
    parts = [tokenizer.token_text(token_id) for token_id in tokenizer.encode("\u20ac")]
    assert parts == ["bytes:\\xe2", "bytes:\\x82", "bytes:\\xac"]


def test_a_row_that_no_token_uses_has_no_text(tokenizer: LocalTokenizer) -> None:
    assert tokenizer.token_bytes(VOCAB_SIZE + 1) == b""
    assert tokenizer.token_text(VOCAB_SIZE + 1) == ""


def test_sentencepiece_spells_spaces_and_bytes(sentencepiece: LocalTokenizer) -> None:
    assert [sentencepiece.token_text(token_id) for token_id in (1, 3, 5, 6 + 0xE2)] == [
        "</s>",
        "  ",
        " a",
        "bytes:\\xe2",
    ]
    ids = sentencepiece.encode("a  a\u20ac")
    assert b"".join(map(sentencepiece.token_bytes, ids)).decode() == "a  a\u20ac"


def test_special_tokens_are_added_only_when_asked(root: Path, tmp_path: Path) -> None:
    folder = _copy(root, tmp_path)
    words = json.loads((folder / "tokenizer.json").read_text())
    start = {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}
    words["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": start},
    }
    words["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(words))
    changed = LocalTokenizer(folder)
    plain = changed.encode("a long text of many words", add_special_tokens=False)
    assert changed.encode("a long text of many words") == [1, *plain]
    assert len(plain) > 3
    assert changed.info()["add_bos_token"]


def test_every_end_of_sequence_id_counts(
    root: Path, tmp_path: Path, tokenizer: LocalTokenizer, sentencepiece: LocalTokenizer
) -> None:
    folder = _copy(root, tmp_path / "more")
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    assert tokenizer.eos_token_ids == {2}
    assert LocalTokenizer(folder).eos_token_ids == {0, 2}
    assert sentencepiece.eos_token_ids == {1, 4}


def test_info_is_json_with_what_clients_read(
    tokenizer: LocalTokenizer, sentencepiece: LocalTokenizer
) -> None:
    info = tokenizer.info()
    assert json.loads(json.dumps(info)) == info
    assert (info["bos_token"], info["eos_token"]) == ("<|im_start|>", "<|im_end|>")
    assert info["pad_token"] == info["unk_token"] == "<|endoftext|>"
    assert info["chat_template"] == CHAT_TEMPLATE
    assert (info["vocab_size"], info["model_max_length"]) == (VOCAB_SIZE + 2, 512)
    assert isinstance(info["tokenizer_class"], str)
    assert sentencepiece.info()["bos_token"] is None


def test_threads_get_the_same_answers(root: Path) -> None:
    fresh = LocalTokenizer(root)

    def read(_: int) -> list[str]:
        return [fresh.token_text(token_id) for token_id in range(VOCAB_SIZE)]

    with ThreadPoolExecutor(8) as pool:
        assert len({tuple(texts) for texts in pool.map(read, range(16))}) == 1


def _copy(root: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for path in root.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder
