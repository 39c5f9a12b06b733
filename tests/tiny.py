"""Tiny randomly initialised models of each architecture family, in Hugging Face's folder form."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.gemma2 import Gemma2Config
from transformers.models.gemma3 import Gemma3TextConfig
from transformers.models.gpt2 import GPT2Config
from transformers.models.gpt_neox import GPTNeoXConfig
from transformers.models.llama import LlamaConfig
from transformers.models.mistral import MistralConfig
from transformers.models.olmo2 import Olmo2Config
from transformers.models.opt import OPTConfig
from transformers.models.phi3 import Phi3Config
from transformers.models.qwen3 import Qwen3Config

VOCAB_SIZE = 384
MAX_POSITIONS = 512
WINDOW = 8
"""Sliding window: short, so that a prompt of a dozen tokens leaves it."""
STD = 0.2
"""Spread of the weights: ten times the usual, so that the distributions are far from flat."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + message['role']) }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEXT = """\
A transom is the window above a closed door: the door stays shut, the light comes through, and what
arrives over the transom is what outsiders send in unasked. The researcher asks a question about a model
that nobody else can run, and leaves with an answer that anybody can replay. The operator opens the model
without giving it away. Every answer is a record, and every record is in the log. In 1876 there were 365
days; it's 3.14 or 2.72, isn't it? There is a house, and in the house there is a table, and on the table
there is a book about the light and the window and the door.
"""

_LAYERS = {"num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 4}
_GATED = {**_LAYERS, "intermediate_size": 128, "num_key_value_heads": 2}
_HEAD = {"head_dim": 16}
_MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_IDS = {
    "vocab_size": VOCAB_SIZE,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "max_position_embeddings": MAX_POSITIONS,
}

CONFIGS = {
    # Learned positions with an offset of two, tied head.
    "opt": lambda: OPTConfig(**_IDS, **_LAYERS, ffn_dim=128, word_embed_proj_dim=64, init_std=STD),
    # Learned positions, tied head, fused q, k and v.
    "gpt2": lambda: GPT2Config(**_IDS, n_layer=3, n_embd=64, n_head=4),
    # Parallel residual, rotary embedding of a part of each head, untied head.
    "gpt_neox": lambda: GPTNeoXConfig(**_IDS, **_LAYERS, intermediate_size=128),
    "llama": lambda: LlamaConfig(**_IDS, **_GATED, tie_word_embeddings=True),
    "mistral": lambda: MistralConfig(**_IDS, **_GATED, **_HEAD, sliding_window=WINDOW),
    # Norms of q and k, heads wider than hidden size over heads, windows in some layers.
    "qwen3": lambda: Qwen3Config(
        **_IDS,
        **_GATED,
        **_MIXED,
        head_dim=32,
        use_sliding_window=True,
        sliding_window=WINDOW,
        tie_word_embeddings=True,
    ),
    # Soft caps on attention scores and on logits, small enough to bend both.
    "gemma2": lambda: Gemma2Config(
        **_IDS,
        **_GATED,
        **_HEAD,
        **_MIXED,
        query_pre_attn_scalar=16,
        sliding_window=WINDOW,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=8.0,
    ),
    # Two rotary bases, one for each kind of layer.
    "gemma3": lambda: Gemma3TextConfig(
        **_IDS, **_GATED, **_HEAD, **_MIXED, query_pre_attn_scalar=16, sliding_window=WINDOW
    ),
    "olmo2": lambda: Olmo2Config(**_IDS, **_GATED),
    # Fused q, k and v, fused gate and up.
    "phi3": lambda: Phi3Config(**_IDS, **_GATED, sliding_window=WINDOW),
}
FAMILIES = tuple(CONFIGS)


def make_tiny(family: str, folder: Path, seed: int = 0) -> Path:
    """Writes a tiny model of `family` with a byte-level tokenizer to `folder`, and returns it."""
    make_model(family, seed).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_model(family: str, seed: int = 0) -> PreTrainedModel:
    """A model of `family`, float32, in evaluation mode, the same for the same seed."""
    config = CONFIGS[family]()
    config.architectures = None
    # The global generator belongs to the test that runs; it must not notice.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, parameter in model.named_parameters():
            _fill(name, parameter)
    return model.eval()


def _fill(name: str, parameter: torch.nn.Parameter) -> None:
    """Wide weights, and norms and biases that are not at their neutral values."""
    neutral = parameter.detach().mean() if "norm" in name or "ln_" in name else 0.0
    with torch.no_grad():
        parameter.normal_(float(neutral), STD if parameter.dim() > 1 else STD / 2)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of `VOCAB_SIZE` tokens, learned from `TEXT`; ids 0 to 2 are the special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    end, start, turn = SPECIAL_TOKENS
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=start, eos_token=turn, pad_token=end, unk_token=end
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
