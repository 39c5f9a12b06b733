"""The manifest of a model root: what exactly is served, file by file and tensor by tensor.

Files are stated as OpenSSF model signing states them (https://github.com/sigstore/model-transparency),
so that its tools can sign and check the same statement. Knows nothing of torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from transom.errors import ModelRefused
from transom.schema import merkle
from transom.schema.canonical import canonical_bytes, sha256
from transom.schema.deployment import ModelManifest

MANIFEST_NAME = "transom.manifest.json"
CHUNK_BYTES = 8 << 20
MAX_HEADER_BYTES = 100 << 20
"""Limit of the safetensors format itself."""

Progress: TypeAlias = Callable[[str, float], None]
"""Told (stage, fraction from 0 to 1), from whichever thread does the work."""


def no_progress(stage: str, fraction: float) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor in a safetensors file: where its bytes lie and what they mean."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int
    """Offset of the first byte in the file."""
    end: int

    def leaf(self, content: bytes) -> bytes:
        """Leaf of the tensors' Merkle tree: length-prefixed description, then SHA-256 of the raw bytes."""
        words = canonical_bytes({"dtype": self.dtype, "name": self.name, "shape": self.shape})
        return len(words).to_bytes(8, "big") + words + content


def compute(root: Path, progress: Progress = no_progress) -> ModelManifest:
    """Hashes a model root.

    Args:
        root: folder with config.json, tokenizer.json and at least one safetensors file.
        progress: told the fraction of bytes hashed.

    Raises:
        ModelRefused: a file is missing, malformed, or a symbolic link.
    """
    files = list_files(root)
    entries = list_tensors([root / name for name in files if name.endswith(".safetensors")])
    config = read_json(root / "config.json")
    meter = _Meter(progress, sum(path.stat().st_size for path in files.values()) + _tensor_bytes(entries))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # Files first: the largest of them is hashed in one thread while the others take tensors.
        file_digests = pool.map(lambda path: _hash_file(path, meter), files.values())
        tensor_digests = pool.map(lambda entry: _hash_tensor(entry, meter), entries)
        digests = dict(zip(files, file_digests, strict=True))
        leaves = [entry.leaf(digest) for entry, digest in zip(entries, tensor_digests, strict=True)]
    template = read_chat_template(root)
    return ModelManifest(
        signing_statement=signing_statement(root.name, digests),
        tensors_root="sha256:" + merkle.root(leaves).hex(),
        tensor_count=len(entries),
        parameter_count=sum(math.prod(entry.shape) for entry in entries),
        tokenizer="sha256:" + _digest_of(digests, "tokenizer.json").hex(),
        chat_template=None if template is None else sha256(template.encode()),
        architecture=_architecture(config),
    )


def save(root: Path, manifest: ModelManifest) -> None:
    """Writes the manifest beside the weights, whole or not at all."""
    partial = root / f".{MANIFEST_NAME}.partial"
    with partial.open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(root / MANIFEST_NAME)


def load(root: Path) -> ModelManifest:
    """Reads the manifest of a model root without checking it against the files.

    Raises:
        ModelRefused: there is none, or it cannot be read.
    """
    path = root / MANIFEST_NAME
    try:
        return ModelManifest.model_validate_json(path.read_bytes())
    except OSError:
        raise ModelRefused(f"{root} has no {MANIFEST_NAME}; add the model again") from None
    except ValidationError as error:
        raise ModelRefused(f"{path} is not a manifest: {error.errors()[0]['msg']}") from error


def verify(root: Path, progress: Progress = no_progress) -> ModelManifest:
    """Hashes every file again and compares it with the saved manifest.

    Raises:
        ModelRefused: names the first file that differs, is missing, or is there without being listed.
    """
    saved = load(root)
    expected = _file_digests(saved)
    present = list_files(root)
    for name in sorted(expected.keys() | present.keys()):
        if name not in present:
            raise ModelRefused(f"{root}: {name} is in the manifest, but missing")
        if name not in expected:
            raise ModelRefused(f"{root}: {name} is not in the manifest; remove it or add the model again")
    # The tensors are recomputed too: a manifest whose parts disagree would put a false root on record.
    computed = compute(root, progress)
    for name, digest in sorted(_file_digests(computed).items()):
        if digest != expected[name]:
            raise ModelRefused(f"{root}: {name} differs from the manifest; its SHA-256 is {digest}")
    if computed.model_copy(update={"signing_statement": saved.signing_statement}) != saved:
        raise ModelRefused(f"{root / MANIFEST_NAME} contradicts the files it lists; add the model again")
    return saved


def signing_statement(name: str, digests: dict[str, bytes]) -> dict[str, Any]:
    """The in-toto Statement of OpenSSF model signing.

    Args:
        name: what the model is called; it names the subject.
        digests: SHA-256 of each file by its path below the root, with forward slashes.
    """
    ordered = sorted(digests.items())
    whole = hashlib.sha256(b"".join(digest for _, digest in ordered)).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": whole}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [],
            },
            "resources": [
                {"name": path, "algorithm": "sha256", "digest": digest.hex()} for path, digest in ordered
            ],
        },
    }


def list_files(root: Path) -> dict[str, Path]:
    """Every file below `root` but the manifest, by its relative path with forward slashes, sorted.

    Raises:
        ModelRefused: `root` is no folder, or something in it is neither a file nor a folder.
    """
    if not root.is_dir():
        raise ModelRefused(f"{root} is not a folder")
    found: dict[str, Path] = {}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            # What a link points at can change without the folder changing.
            raise ModelRefused(f"{root}: {name} is a symbolic link; a model root holds plain files only")
        if path.is_file() and name != MANIFEST_NAME:
            found[name] = path
        elif not path.is_dir() and not path.is_file():
            raise ModelRefused(f"{root}: {name} is neither a file nor a folder")
    return dict(sorted(found.items()))


def list_tensors(paths: list[Path]) -> list[TensorEntry]:
    """The tensors of all safetensors files, sorted by name.

    Raises:
        ModelRefused: a file is malformed, there is no tensor, or two have one name.
    """
    entries = sorted((entry for path in paths for entry in _read_header(path)), key=lambda entry: entry.name)
    if not entries:
        raise ModelRefused("the model root holds no safetensors file with a tensor in it")
    for before, after in pairwise(entries):
        if before.name == after.name:
            raise ModelRefused(f"tensor {after.name} is in both {before.path.name} and {after.path.name}")
    return entries


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the model root.

    Raises:
        ModelRefused: there is no such file, or it holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelRefused(f"{path.parent} has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelRefused(f"{path} holds no JSON object")
    return value


def read_chat_template(root: Path) -> str | None:
    """Text of the chat template, from its own file or from tokenizer_config.json; None for a base model."""
    own = root / "chat_template.jinja"
    if own.is_file():
        return own.read_text(encoding="utf-8")
    path = root / "tokenizer_config.json"
    inline = read_json(path).get("chat_template") if path.is_file() else None
    if isinstance(inline, list):
        # Some models name several; transformers takes `default` where nothing else is asked for.
        inline = {entry["name"]: entry["template"] for entry in inline}.get("default")
    return inline if isinstance(inline, str) else None


class _Meter:
    """Turns bytes hashed by several threads into one fraction."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = max(total, 1)
        self._done = 0

    def add(self, count: int) -> None:
        # A lost update under a race costs one step of a progress bar and nothing else.
        self._done += count
        self._progress("hashing", min(self._done / self._total, 1.0))


def _tensor_bytes(entries: list[TensorEntry]) -> int:
    return sum(entry.end - entry.start for entry in entries)


def _hash_file(path: Path, meter: _Meter) -> bytes:
    state = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            state.update(chunk)
            meter.add(len(chunk))
    return state.digest()


def _hash_tensor(entry: TensorEntry, meter: _Meter) -> bytes:
    state = hashlib.sha256()
    for chunk in _chunks(entry):
        state.update(chunk)
        meter.add(len(chunk))
    return state.digest()


def _chunks(entry: TensorEntry) -> Iterator[memoryview]:
    with (
        entry.path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        for start in range(entry.start, entry.end, CHUNK_BYTES):
            with view[start : min(start + CHUNK_BYTES, entry.end)] as chunk:
                yield chunk


def _read_header(path: Path) -> list[TensorEntry]:
    """Tensors of one file; the format is eight bytes of header length, a JSON header, then the data."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise ModelRefused(f"{path.name} is no safetensors file, or it is cut off")
        header = file.read(length)
    try:
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        return [_entry(path, name, words, 8 + length, size) for name, words in tensors.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelRefused(f"{path.name} has a malformed safetensors header: {error}") from error


def _entry(path: Path, name: str, words: dict[str, Any], base: int, size: int) -> TensorEntry:
    start, end = (base + offset for offset in words["data_offsets"])
    if not base <= start <= end <= size:
        raise ModelRefused(f"{path.name} is cut off: tensor {name} ends at byte {end} of {size}")
    return TensorEntry(name, words["dtype"], tuple(words["shape"]), path, start, end)


def _digest_of(digests: dict[str, bytes], name: str) -> bytes:
    if name not in digests:
        raise ModelRefused(f"the model root has no {name}")
    return digests[name]


def _file_digests(manifest: ModelManifest) -> dict[str, str]:
    """Hexadecimal digest of each file that the manifest lists."""
    statement: Any = manifest.signing_statement
    try:
        return {entry["name"]: entry["digest"] for entry in statement["predicate"]["resources"]}
    except (KeyError, TypeError) as error:
        raise ModelRefused(f"the manifest lists no files: {error}") from error


def _architecture(config: dict[str, Any]) -> str:
    match config.get("architectures"):
        case [str(name)]:
            return name
    raise ModelRefused("config.json does not name exactly one architecture")
