"""The preamble: the text with which every conversation of a model begins, encoded once.

Many chat templates begin with a system prompt of their own, which is longer than most questions. The library
first cuts a text at its added tokens, and then treats each part for itself. So where a preamble ends with
such a token, the ids of a prompt are those of the preamble and those of what comes after it.

Nobody's words are kept, only the template's own: how long an encoding takes tells nothing of what others ask.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from os.path import commonprefix
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer

FEWEST_TOKENS = 8
"""A shorter preamble is not worth looking for."""

# Those that look at nothing beyond the part that they are given. Metaspace asks whether it is the first.
_LOCAL = frozenset({"Sequence", "ByteLevel", "Split", "Digits", "Punctuation", "NFC", "NFKC"})


class Preamble(NamedTuple):
    """A text, and the ids that it has at the beginning of any text."""

    text: str
    token_ids: list[int]


def find(tokenizer: Tokenizer, conversations: Sequence[str]) -> Preamble | None:
    """The preamble of conversations that have nothing in common but their template.

    Args:
        tokenizer: theirs.
        conversations: as the template spells them; at least two.

    Returns:
        None where there is none, or where it is not certain that it can be encoded by itself.
    """
    common = commonprefix(conversations)  # noqa: RUF071 - character by character is what is meant
    ends = [common.rfind(word) + len(word) for word in _cuts(tokenizer) if word in common]
    if not ends or not _is_local(tokenizer):
        return None
    text = common[: max(ends)]
    found = Preamble(text, _ids(tokenizer, text))
    if len(found.token_ids) < FEWEST_TOKENS:
        return None
    for conversation in conversations:
        if _ids(tokenizer, conversation) != found.token_ids + _ids(tokenizer, conversation[len(text) :]):
            return None
    return found


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def _cuts(tokenizer: Tokenizer) -> Iterator[str]:
    """Added tokens at which any text is cut, whatever stands before and after them."""
    added: list[AddedToken] = list(tokenizer.get_added_tokens_decoder().values())
    if tokenizer.encode_special_tokens:
        return
    for token in added:
        plain = not (token.normalized or token.lstrip or token.rstrip or token.single_word)
        # One within another would be a place where the library may cut otherwise.
        if plain and not any(token.content in other.content for other in added if other is not token):
            yield token.content


def _is_local(tokenizer: Tokenizer) -> bool:
    """Whether each part between added tokens becomes the same ids wherever it stands."""
    description = json.loads(tokenizer.to_str())
    model = description["model"]
    kinds = {*_kinds(description["normalizer"]), *_kinds(description["pre_tokenizer"])}
    stripping = [token for token in description["added_tokens"] if token["lstrip"] or token["rstrip"]]
    return model["type"] == "BPE" and not model.get("dropout") and kinds <= _LOCAL and not stripping


def _kinds(part: dict[str, Any] | None) -> Iterator[str]:
    if part is not None:
        yield part["type"]
        for inner in (*part.get("pretokenizers", ()), *part.get("normalizers", ())):
            yield from _kinds(inner)
