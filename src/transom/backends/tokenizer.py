r"""The tokenizer of one model root, without torch.

Encodes with the bare `tokenizers` library, which conversion has checked against transformers, and renders
conversations with transformers' own template sandbox.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from jinja2 import TemplateError, TemplateSyntaxError
from transformers.utils.chat_template_utils import _compile_jinja_template, render_jinja_template

from transom.backends import preamble
from transom.backends.manifest import read_chat_template, read_json
from transom.backends.preamble import Preamble
from transom.errors import InvalidRequest, ModelRefused

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The special tokens that templates and clients know by name."""
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""How sentencepiece spells a byte that no token covers."""
# What a template raises on messages of the wrong shape: it is a program, and runs into any of these.
TEMPLATE_FAILURES = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
_BARE = frozenset({"role", "content"})
_ASKED_OF_TEMPLATE = {"tools": None, "documents": None, "add_generation_prompt": True}


class LocalTokenizer:
    """Text to token ids and back, as the model root says. Safe to call from any thread."""

    def __init__(self, root: Path) -> None:
        """Reads the tokenizer of a model root.

        Args:
            root: folder with tokenizer.json and config.json.

        Raises:
            ModelRefused: a file is missing or malformed, or the chat template is no valid program.
        """
        self._tokenizer = _read_tokenizer(root / "tokenizer.json")
        self._config = read_json(root / "config.json")
        self._settings = _read_optional(root / "tokenizer_config.json")
        self._template = read_chat_template(root)
        self._named: dict[str, Any] = dict(_named_tokens(self._settings))
        self._vocab_size = _vocab_size(self._config)
        self._eos = frozenset(_eos_ids([self._config, _read_optional(root / "generation_config.json")]))
        self._special = self._tokenizer.get_added_tokens_decoder()
        self._bytes_of = _byte_spelling(self._tokenizer)
        # One slot a token, filled on first use; two threads filling one slot write the same value.
        self._texts: list[str | None] = [None] * self._vocab_size
        self._preamble: Preamble | None = None
        self._check_template()

    @property
    def has_chat_template(self) -> bool:
        """Whether `render` can work."""
        return self._template is not None

    @property
    def hidden_size(self) -> int:
        """Width of the hidden rows of the model that this is the tokenizer of.

        Raises:
            ModelRefused: its configuration does not say.
        """
        return _hidden_size(self._config)

    @property
    def vocab_size(self) -> int:
        """Number of rows of the output matrix; the tokenizer may know fewer tokens."""
        return self._vocab_size

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Tokens that end a sequence, by the generation settings and by the model's configuration."""
        return self._eos

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`; a special token spelled out in it counts as that token.

        Args:
            text: any text. Text from `render` already holds its special tokens.
            add_special_tokens: whether to add those that the model expects around a text.
        """
        known = self._preamble
        if known is not None and not add_special_tokens and text.startswith(known.text):
            rest = self._tokenizer.encode(text[len(known.text) :], add_special_tokens=False)
            return known.token_ids + rest.ids
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text of token ids; incomplete UTF-8 becomes U+FFFD."""
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def token_text(self, token_id: int) -> str:
        r"""Spelling of one token on its own; bytes that are no UTF-8 are spelled `bytes:\xe2\x80`.

        Raises:
            InvalidRequest: the id is outside the vocabulary.
        """
        self._check_id(token_id)
        text = self._texts[token_id]
        if text is None:
            text = self._texts[token_id] = _spell(self.token_bytes(token_id))
        return text

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that the token stands for; none for a row that no token uses.

        Raises:
            InvalidRequest: the id is outside the vocabulary.
        """
        self._check_id(token_id)
        if self.is_special(token_id):
            return self._special[token_id].content.encode()
        token = self._tokenizer.id_to_token(token_id)
        return b"" if token is None else self._bytes_of(token)

    def stream(self, prompt_token_ids: Sequence[int]) -> TokenStream:
        """Decoder for the tokens that continue a prompt; special tokens have no text in it."""
        stream = TokenStream(self)
        # A prompt of token ids may end inside a character, which has four bytes at most.
        for token_id in prompt_token_ids[-4:]:
            stream.step(token_id)
        return stream

    def is_special(self, token_id: int) -> bool:
        """Whether the token marks structure, such as the end of a turn, and stands for no text."""
        added = self._special.get(token_id)
        return added is not None and added.special

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The prompt text of a conversation, up to where the assistant's answer begins.

        Raises:
            InvalidRequest: the model has no chat template, or it refuses these messages.
        """
        if self._template is None:
            raise InvalidRequest("this model has no chat template; use /v1/completions", param="messages")
        if not messages:
            raise InvalidRequest("messages is empty; send at least one", param="messages")
        try:
            return self._render(messages)
        except TEMPLATE_FAILURES as error:
            raise InvalidRequest(
                f"the model's chat template refuses these messages: {error}", param="messages"
            ) from error

    def info(self) -> dict[str, Any]:
        """What `/tokenizer_info` answers: vLLM's fields, and the sizes that clients ask for.

        Special tokens are strings or None, as lm-eval's remote tokenizer reads them.
        """
        return {
            "tokenizer_class": self._settings.get("tokenizer_class", "PreTrainedTokenizerFast"),
            **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token")),
            **self._named,
            "chat_template": self._template,
            "add_bos_token": self._adds_bos(),
            "vocab_size": self._vocab_size,
            "eos_token_ids": sorted(self._eos),
            "model_max_length": self._max_length(),
        }

    def _render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        # As transformers does: a key whose value is null counts as left out.
        chat = [{key: value for key, value in message.items() if value is not None} for message in messages]
        if all(map(_is_bare, chat)):
            # What transformers does to other messages before it renders them leaves these as they are.
            compiled: Any = _compile_jinja_template(self._template)
            return str(compiled.render(messages=chat, **_ASKED_OF_TEMPLATE, **self._named))
        rendered: Any = render_jinja_template(
            [chat], chat_template=self._template, add_generation_prompt=True, **self._named
        )
        return str(rendered[0][0])

    def _check_template(self) -> None:
        """Finds a template that cannot be compiled now, and not at the first request; else its preamble."""
        if self._template is None:
            return
        try:
            samples = [self._render([{"role": "user", "content": said}]) for said in ("Hello", "Why?")]
            self._preamble = preamble.find(self._tokenizer, samples)
        except TemplateSyntaxError as error:
            raise ModelRefused(f"the chat template is no valid template: {error}") from error
        except TEMPLATE_FAILURES:
            pass  # It may well refuse this conversation and take others.

    def _check_id(self, token_id: int) -> None:
        if not 0 <= token_id < self._vocab_size:
            raise InvalidRequest(f"token id {token_id} is outside the vocabulary of {self._vocab_size}")

    def _adds_bos(self) -> bool:
        bos = self._named.get("bos_token")
        return bos is not None and self._tokenizer.token_to_id(bos) in self.encode("")

    def _max_length(self) -> int | None:
        """The lesser of tokenizer's and model's limit; transformers writes 1e30 where there is none."""
        text = self._config.get("text_config") or self._config
        limits = [self._settings.get("model_max_length"), text.get("max_position_embeddings")]
        known = [limit for limit in limits if isinstance(limit, int) and limit < 2**53]
        return min(known, default=None)


class TokenStream:
    """Decodes the tokens of one continuation as they come; needs each of them once."""

    def __init__(self, tokenizer: LocalTokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def step(self, token_id: int) -> str:
        """Text that became certain; empty while a character is incomplete."""
        if self._tokenizer.is_special(token_id):
            return ""
        return self._utf8.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """What is left at the end; incomplete bytes become U+FFFD."""
        return self._utf8.decode(b"", final=True)


def _is_bare(message: Mapping[str, Any]) -> bool:
    """Whether it is a role and a text, which most are; texts are nothing that a template could misuse."""
    return message.keys() <= _BARE and all(type(value) is str for value in message.values())


def _read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ModelRefused(f"{path} cannot be read: {error}") from error
    # Settings left over from training would shorten or lengthen a prompt behind the caller's back.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _named_tokens(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Special tokens by name; older files hold an object with `content` instead of the text."""
    for name in NAMED_TOKENS:
        value = settings.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            yield name, text


def _vocab_size(config: Mapping[str, Any]) -> int:
    return _stated(config, "vocab_size")


def _hidden_size(config: Mapping[str, Any]) -> int:
    # GPT-2 and its kin have a name of their own for it; OPT's output matrix may be narrower than its layers.
    return _stated(config, "word_embed_proj_dim", "hidden_size", "n_embd")


def _stated(config: Mapping[str, Any], *names: str) -> int:
    for name in names:
        for part in (config, config.get("text_config") or {}):
            if isinstance(size := part.get(name), int):
                return size
    raise ModelRefused(f"config.json states no {names[-1]}")


def _eos_ids(configs: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    for config in configs:
        for part in (config, config.get("text_config") or {}):
            value = part.get("eos_token_id")
            yield from [value] if isinstance(value, int) else value or []


def _spell(content: bytes) -> str:
    """Text where the bytes are UTF-8, else their spelling in OpenAI's completions API."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


def _byte_spelling(tokenizer: tokenizers.Tokenizer) -> Callable[[str], bytes]:
    """How this vocabulary writes bytes, told by the parts of its decoder."""
    parts = set(_decoder_parts(json.loads(tokenizer.to_str())["decoder"]))
    if "ByteLevel" in parts:
        return _byte_level
    if "ByteFallback" in parts:
        return _byte_fallback
    if parts & {"Metaspace", "Replace"}:
        return _metaspace
    raise ModelRefused(f"tokenizer.json has a decoder that cannot spell single tokens: {sorted(parts)}")


def _decoder_parts(decoder: dict[str, Any] | None) -> Iterator[str]:
    if decoder is not None:
        yield decoder["type"]
        for part in decoder.get("decoders", ()):
            yield from _decoder_parts(part)


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's table, inverted: printable bytes stand for themselves, the others for U+0100 and on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + index): byte for index, byte in enumerate(hidden)
    }


_BYTE_OF = _byte_level_alphabet()


def _byte_level(token: str) -> bytes:
    try:
        return bytes(_BYTE_OF[letter] for letter in token)
    except KeyError:
        # A token that was added by hand and holds letters outside the table stands for itself.
        return token.encode()


def _byte_fallback(token: str) -> bytes:
    byte = BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else _metaspace(token)


def _metaspace(token: str) -> bytes:
    return token.replace("\u2581", " ").encode()
