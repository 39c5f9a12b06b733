"""`POST /v1/completions`: what is accepted."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from transom.schema.generation import MAX_TOP_LOGPROBS
from transom.schema.steering import SteeredBody
from transom.schema.wire import MAX_CHOICES, MAX_PROMPTS, TokenId

Prompt = str | list[str] | list[TokenId] | list[list[TokenId]]


def _one_of_four(value: object) -> object:
    """Name what is wrong with a prompt, instead of four reports of how it is none of four types."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise PydanticCustomError("prompt", "must be text, token ids, or a list of either that is not empty")
    kinds = {_kind(item) for item in value}
    if len(kinds) > 1 or kinds == {"wrong"}:
        raise PydanticCustomError(
            "prompt", "must hold only texts, only token ids, or only lists of token ids"
        )
    if kinds != {"id"} and len(value) > MAX_PROMPTS:
        raise PydanticCustomError("prompt", "holds more than {most} prompts", {"most": MAX_PROMPTS})
    return value


def _kind(item: object) -> str:
    if isinstance(item, str):
        return "text"
    if _is_id(item):
        return "id"
    return "ids" if isinstance(item, list) and item and all(map(_is_id, item)) else "wrong"


def _is_id(item: object) -> bool:
    return type(item) is int and 0 <= item < 2**31


class CompletionRequest(SteeredBody):
    """A prompt to continue, or several. Token ids are taken as they are: nothing is added or stripped."""

    refused: ClassVar[dict[str, str]] = {
        "suffix": "the models served here continue text and do not fill in the middle",
    }

    prompt: Annotated[
        Prompt, BeforeValidator(_one_of_four), Field(description="Text, token ids, or a list of either.")
    ]
    max_tokens: int = Field(default=16, ge=0, le=2**31)
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    echo: bool = False
    best_of: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    add_special_tokens: bool = Field(
        default=True, description="Whether text prompts get what the tokenizer adds."
    )
