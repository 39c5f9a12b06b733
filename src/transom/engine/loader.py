"""From a model root to an engine that is proven on this machine."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import llvmlite.binding
import numba
import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel

from transom.engine import lens as lenses
from transom.engine import sampler
from transom.engine.attention import PagedAttention, RowMap
from transom.engine.attention_torch import TorchAttention
from transom.engine.body import SplitModel
from transom.engine.core import Engine
from transom.engine.dimensions import dimensions_of, measure
from transom.engine.fusion import fuse
from transom.engine.kernels import target
from transom.engine.kernels.amx import HAS_AMX
from transom.engine.kernels.cache import PAGE
from transom.engine.lens import Lens
from transom.engine.linear import arithmetic, replace_linears
from transom.engine.messages import EngineOptions
from transom.engine.places import Places, find_boundaries, find_places
from transom.engine.processor import lacking
from transom.engine.proof import prove, reference
from transom.engine.runner import Runner
from transom.engine.scheduler import Scheduler
from transom.errors import ModelRefused
from transom.internals.board import Board
from transom.schema.canonical import sha256
from transom.schema.dimensions import Dimensions

_BATCHED_TOKENS = {True: 256, False: 2048}
"""Tokens of a step where the operator names no number: by our kernels, which lose little by small steps, and
by torch on another device, which loses much. Whoever comes in the middle of a step waits for its end."""

_UNDECLARED = 1 << 17
"""The longest sequence of a model that declares none."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine and what it found out about itself."""

    engine: Engine
    places: Places
    lens: Lens
    profile: dict[str, str]
    max_model_len: int
    dimensions: Dimensions


def load(options: EngineOptions) -> LoadedEngine:
    """Load, replace the kernels, and prove the result against the plain model.

    Raises:
        ModelRefused: the model cannot be served exactly; the message says why.
    """
    _hold_to(options.processor)
    _set_threads(options.threads)
    device, dtype = _device(options.device), _dtype(options.dtype)
    model = _load_model(Path(options.root), dtype, device)
    longest = _longest(model.config.get_text_config())
    expected = reference(model, longest)
    boundaries, plain = find_boundaries(model), measure(model)
    ours = _has_kernels(device)
    attention = PagedAttention() if ours else TorchAttention(device)
    attention.attach(model)
    board = Board()
    fused = _replace_modules(model, attention, longest, board) if ours else 0
    pages = max(2, options.cache_bytes // (attention.bytes_per_token(dtype) * PAGE))
    limit = _max_model_len(model, options, capacity=(pages - 1) * PAGE)
    attention.allocate(pages, dtype)
    attention.set_rows(RowMap.alone(2))
    places = find_places(model, attention, boundaries)
    runner = Runner(SplitModel(model), attention, board, places.modules)
    prove(runner, expected, pages, options.dtype, invariant=ours)
    sampler.warm_up()
    lenses.warm_up()
    scheduler = Scheduler(
        pages=pages,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens or _BATCHED_TOKENS[ours],
        prefix_caching=options.prefix_caching,
    )
    engine = Engine(runner, scheduler, frozenset(options.eos_token_ids))
    operators = _our_operators(dtype, fused) if ours else _TORCH_OPERATORS
    lens = Lens(places.final_norm, runner.logits)
    dimensions = dimensions_of(plain, attention, places, gradient_bytes=options.gradient_bytes)
    profile = _profile(options.dtype, device) | operators
    return LoadedEngine(engine, places, lens, profile, limit, dimensions)


def _device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        ModelRefused: there is none such, or this build of torch cannot use it.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a device without numbers ("meta") has none to give
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ModelRefused(f"device {name!r} cannot be used here: {reason}") from error
    return device


def _dtype(name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise ModelRefused(f"dtype {name!r} is none of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _has_kernels(device: torch.device) -> bool:
    """Whether our kernels run there."""
    return device.type == "cpu"


def _replace_modules(model: PreTrainedModel, attention: PagedAttention, longest: int, board: Board) -> int:
    """Put our kernels in the place of the model's modules; how many were fused."""
    fused = fuse(model, attention, longest, board)
    replace_linears(model)
    return fused


def _hold_to(processor: str) -> None:
    if missing := list(lacking(processor, target.HOST)):
        raise ModelRefused(f"This machine is no {processor}: it lacks {', '.join(missing)}.")


def _set_threads(threads: int) -> None:
    count = threads or os.cpu_count() or 1
    torch.set_num_threads(count)
    numba.set_num_threads(min(count, numba.get_num_threads()))


def _load_model(root: Path, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = AutoModelForCausalLM.from_pretrained(
            root, dtype=dtype, attn_implementation="eager", local_files_only=True
        )
        model.to(device)  # type: ignore[arg-type]
    except Exception as error:  # whatever a library raises, the reason must reach the operator
        raise ModelRefused(f"transformers cannot load {root.name}: {error}") from error
    model.train(mode=False)
    model.requires_grad_(requires_grad=False)
    return model


def _max_model_len(model: PreTrainedModel, options: EngineOptions, capacity: int) -> int:
    longest = _longest(model.config.get_text_config())
    if options.max_model_len > longest:
        raise ModelRefused(
            f"max_model_len {options.max_model_len} is beyond the {longest} that the model declares, or "
            "beyond which its rotary embedding depends on who else is in the batch"
        )
    return min(options.max_model_len or longest, capacity)


def _longest(config: PreTrainedConfig) -> int:
    """The longest sequence that is computed alike in every batch."""
    declared = getattr(config, "max_position_embeddings", None) or _UNDECLARED
    return min(declared, _length_without_rescaling(config) or declared)


def _length_without_rescaling(config: PreTrainedConfig) -> int | None:
    """Up to how many tokens the rotary embedding is the same for every batch; None for any number.

    Transformers rescales "dynamic" and "longrope" embeddings by the largest position of a forward, so that a
    long sequence would change the answers of those beside it.
    """
    given = getattr(config, "rope_parameters", None) or {}
    kinds = given.values() if all(isinstance(part, dict) for part in given.values()) else [given]
    lengths = [
        int(kind.get("original_max_position_embeddings") or config.max_position_embeddings)
        for kind in kinds
        if kind.get("rope_type") in {"dynamic", "longrope"}
    ]
    return min(lengths, default=None)


def _profile(dtype: str, device: torch.device) -> dict[str, str]:
    named = f" {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return {
        "dtype": dtype,
        "device": f"{device.type}{named}",
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "numba": f"{numba.__version__} llvm {'.'.join(map(str, llvmlite.binding.llvm_version_info))}",
        "libm": " ".join(platform.libc_ver()) or platform.system(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_features": sha256(target.describe().encode()),
        "sampler": sampler.NAME,
    }


_TORCH_OPERATORS = {"linear": "torch", "attention": "torch/gathered/v1", "fusion": "none"}
"""Of devices that our kernels do not run on."""


def _our_operators(dtype: torch.dtype, fused: int) -> dict[str, str]:
    return {
        "linear": arithmetic(dtype),
        "attention": f"paged/{PAGE}/v2-amx" if dtype == torch.bfloat16 and HAS_AMX else f"paged/{PAGE}/v3",
        "fusion": f"{fused} modules/v3",
    }
