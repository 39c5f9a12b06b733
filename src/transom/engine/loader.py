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
from transformers.modeling_utils import PreTrainedModel

from transom.engine import sampler
from transom.engine.attention import PagedAttention, RowMap
from transom.engine.body import SplitModel
from transom.engine.core import Engine
from transom.engine.fusion import fuse
from transom.engine.kernels.attention import PAGE
from transom.engine.linear import arithmetic, replace_linears
from transom.engine.messages import EngineOptions
from transom.engine.proof import prove, reference
from transom.engine.runner import Runner
from transom.engine.scheduler import Scheduler
from transom.errors import ModelRefused
from transom.schema.canonical import sha256

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine and what it found out about itself."""

    engine: Engine
    profile: dict[str, str]
    max_model_len: int


def load(options: EngineOptions) -> LoadedEngine:
    """Load, replace the kernels, and prove the result against the plain model.

    Raises:
        ModelRefused: the model cannot be served exactly; the message says why.
    """
    _set_threads(options.threads)
    model = _load_model(Path(options.root), options.dtype)
    expected = reference(model)
    dtype = _DTYPES[options.dtype]
    attention = PagedAttention()
    attention.attach(model)
    fused = fuse(model, attention)
    replace_linears(model)
    pages = max(2, options.cache_bytes // (attention.bytes_per_token(dtype) * PAGE))
    limit = _max_model_len(model, options, capacity=(pages - 1) * PAGE)
    attention.allocate(pages, dtype)
    attention.set_rows(RowMap.alone(2))
    runner = Runner(SplitModel(model), attention)
    prove(runner, expected, pages, options.dtype)
    sampler.warm_up()
    scheduler = Scheduler(
        pages=pages,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        prefix_caching=options.prefix_caching,
    )
    engine = Engine(runner, scheduler, frozenset(options.eos_token_ids))
    return LoadedEngine(engine, _profile(options.dtype, fused), limit)


def _set_threads(threads: int) -> None:
    count = threads or os.cpu_count() or 1
    torch.set_num_threads(count)
    numba.set_num_threads(min(count, numba.get_num_threads()))


def _load_model(root: Path, dtype: str) -> PreTrainedModel:
    if dtype not in _DTYPES:
        raise ModelRefused(f"dtype {dtype!r} is none of {', '.join(_DTYPES)}")
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = AutoModelForCausalLM.from_pretrained(
            root, dtype=_DTYPES[dtype], attn_implementation="eager", local_files_only=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelRefused(f"transformers cannot load {root.name}: {error}") from error
    model.train(mode=False)
    model.requires_grad_(requires_grad=False)
    return model


def _max_model_len(model: PreTrainedModel, options: EngineOptions, capacity: int) -> int:
    config = model.config.get_text_config()
    declared = getattr(config, "max_position_embeddings", None) or capacity
    if options.max_model_len > declared:
        raise ModelRefused(
            f"max_model_len {options.max_model_len} is beyond the {declared} that the model declares"
        )
    return min(options.max_model_len or declared, capacity)


def _profile(dtype: str, fused: int) -> dict[str, str]:
    target = f"{llvmlite.binding.get_host_cpu_name()} {llvmlite.binding.get_host_cpu_features().flatten()}"
    return {
        "dtype": dtype,
        "device": "cpu",
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "numba": f"{numba.__version__} llvm {'.'.join(map(str, llvmlite.binding.llvm_version_info))}",
        "libm": " ".join(platform.libc_ver()) or platform.system(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_features": sha256(target.encode()),
        "linear": arithmetic(_DTYPES[dtype]),
        "attention": f"paged/{PAGE}/v2",
        "fusion": f"{fused} modules/v2",
        "sampler": sampler.NAME,
    }
