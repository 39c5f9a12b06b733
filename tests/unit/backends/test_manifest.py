"""The manifest finds every change to a model root, and states files as OpenSSF model signing does."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from transom.backends import manifest
from transom.errors import ModelRefused
from transom.schema import merkle
from transom.schema.canonical import canonical_bytes

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
BIAS = np.ones(4, dtype=np.float16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["ToyForCausalLM"]}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    save_file({"rows": ROWS}, folder / "model-00002-of-00002.safetensors")
    save_file({"bias": BIAS}, folder / "model-00001-of-00002.safetensors")
    return folder


@pytest.fixture
def saved(root: Path) -> Path:
    manifest.save(root, manifest.compute(root))
    return root


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "chat_template.jinja", "model-00001-of-00002.safetensors"]
)
def test_a_flipped_bit_is_found_and_its_file_named(saved: Path, name: str) -> None:
    content = bytearray((saved / name).read_bytes())
    content[-2] ^= 0x01
    (saved / name).write_bytes(content)
    with pytest.raises(ModelRefused, match=name):
        manifest.verify(saved)


def test_a_missing_file_is_named(saved: Path) -> None:
    (saved / "tokenizer.json").unlink()
    with pytest.raises(ModelRefused, match=r"tokenizer\.json is in the manifest, but missing"):
        manifest.verify(saved)


def test_an_extra_file_is_named(saved: Path) -> None:
    (saved / "deep").mkdir()
    (saved / "deep" / "extra.bin").write_bytes(b"x")
    with pytest.raises(ModelRefused, match=r"deep/extra\.bin is not in the manifest"):
        manifest.verify(saved)


@pytest.mark.parametrize("target", ["config.json", "nowhere", "."])
def test_a_symbolic_link_is_refused(saved: Path, target: str) -> None:
    (saved / "link").symlink_to(target)
    with pytest.raises(ModelRefused, match="link is a symbolic link"):
        manifest.verify(saved)


def test_a_truncated_weights_file_is_refused(root: Path) -> None:
    path = root / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelRefused, match="cut off"):
        manifest.compute(root)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01\x00",
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 4) + b"nope",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 16) + b'{"a":{"dtype":1}',
        struct.pack("<Q", 52) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[9,0]}}'[:52],
    ],
)
def test_a_malformed_weights_file_is_refused(root: Path, content: bytes) -> None:
    (root / "model-00002-of-00002.safetensors").write_bytes(content)
    with pytest.raises(ModelRefused, match="model-00002-of-00002"):
        manifest.compute(root)


def test_a_tensor_in_two_files_is_refused(root: Path) -> None:
    save_file({"rows": ROWS}, root / "again.safetensors")
    with pytest.raises(ModelRefused, match="tensor rows is in both"):
        manifest.compute(root)


def test_a_root_without_weights_is_refused(root: Path) -> None:
    for path in root.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(ModelRefused, match="no safetensors"):
        manifest.compute(root)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_root_without_a_needed_file_is_refused(root: Path, name: str) -> None:
    (root / name).unlink()
    with pytest.raises(ModelRefused, match=name):
        manifest.compute(root)


@pytest.mark.parametrize(
    "config", ["{", "[]", "{}", '{"architectures": []}', '{"architectures": ["A", "B"]}']
)
def test_a_config_without_one_architecture_is_refused(root: Path, config: str) -> None:
    (root / "config.json").write_text(config)
    with pytest.raises(ModelRefused, match=r"config\.json"):
        manifest.compute(root)


def test_a_root_without_a_manifest_is_refused(root: Path) -> None:
    with pytest.raises(ModelRefused, match="has no transom"):
        manifest.verify(root)


@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_a_broken_manifest_is_refused(saved: Path, content: str) -> None:
    (saved / manifest.MANIFEST_NAME).write_text(content)
    with pytest.raises(ModelRefused, match="is not a manifest"):
        manifest.verify(saved)


@pytest.mark.parametrize("field", ["tensors_root", "architecture", "tokenizer"])
def test_a_manifest_that_contradicts_its_files_is_refused(saved: Path, field: str) -> None:
    path = saved / manifest.MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), field: "sha256:00"}))
    with pytest.raises(ModelRefused, match="contradicts"):
        manifest.verify(saved)


def test_an_untouched_root_verifies_to_what_was_saved(saved: Path) -> None:
    assert manifest.verify(saved) == manifest.load(saved) == manifest.compute(saved)


def test_files_are_stated_in_model_signing_form(root: Path) -> None:
    statement = manifest.compute(root).signing_statement
    names = sorted(path.name for path in root.iterdir())
    digests = [hashlib.sha256((root / name).read_bytes()) for name in names]
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://model_signing/signature/v1.0"
    whole = hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()
    assert statement["subject"] == [{"name": "toy", "digest": {"sha256": whole}}]
    assert statement["predicate"] == {
        "serialization": {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
            "ignore_paths": [],
        },
        "resources": [
            {"name": name, "algorithm": "sha256", "digest": digest.hexdigest()}
            for name, digest in zip(names, digests, strict=True)
        ],
    }


def test_tensors_are_leaves_in_the_order_of_their_names(root: Path) -> None:
    computed = manifest.compute(root)
    leaves = [
        _leaf({"name": "bias", "dtype": "F16", "shape": [4]}, BIAS),
        _leaf({"name": "rows", "dtype": "F32", "shape": [3, 4]}, ROWS),
    ]
    assert computed.tensors_root == "sha256:" + merkle.root(leaves).hex()
    assert (computed.tensor_count, computed.parameter_count) == (2, 16)


def test_the_tensors_root_does_not_depend_on_how_files_are_cut(root: Path) -> None:
    before = manifest.compute(root)
    for path in root.glob("*.safetensors"):
        path.unlink()
    save_file({"rows": ROWS, "bias": BIAS}, root / "model.safetensors")
    after = manifest.compute(root)
    assert after.tensors_root == before.tensors_root
    assert after.digest != before.digest


def test_the_chat_template_counts_wherever_it_is_kept(root: Path) -> None:
    own = manifest.compute(root).chat_template
    (root / "chat_template.jinja").unlink()
    assert manifest.compute(root).chat_template is None
    for inline in ("{{ messages }}", [{"name": "default", "template": "{{ messages }}"}]):
        (root / "tokenizer_config.json").write_text(json.dumps({"chat_template": inline}))
        assert manifest.compute(root).chat_template == own


def test_progress_ends_at_one(root: Path) -> None:
    seen: list[tuple[str, float]] = []
    manifest.compute(root, lambda stage, fraction: seen.append((stage, fraction)))
    assert {stage for stage, _ in seen} == {"hashing"}
    assert max(fraction for _, fraction in seen) == pytest.approx(1.0)


def _leaf(words: dict[str, object], tensor: np.ndarray) -> bytes:
    described = canonical_bytes(words)
    return len(described).to_bytes(8, "big") + described + hashlib.sha256(tensor.tobytes()).digest()
