"""`POST /tokenize` and `/detokenize`, as vLLM and lm-eval speak them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from transom.schema.messages import Message
from transom.schema.wire import Body, TokenId


class TokenizeRequest(Body):
    """Text, or a conversation to render first."""

    refused: ClassVar[dict[str, str]] = {
        "tools": "tool calls are not offered yet",
        "chat_template": "the template is part of the deployment",
    }

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = Field(default=None, min_length=1, max_length=4096)
    add_special_tokens: bool | None = Field(
        default=None, description="Left out: true for a prompt, false for messages, whose template has them."
    )
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _one_of_two(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError(
                "either_or",
                "give either prompt or messages",
                {"field": "prompt" if self.messages is None else "messages"},
            )
        return self


class TokenizeResponse(Body):
    """The token ids."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(Body):
    """Token ids to turn into text."""

    model: str | None = None
    tokens: list[TokenId] = Field(max_length=1_000_000)


class DetokenizeResponse(Body):
    """The text."""

    prompt: str
