"""`POST /v1/chat/completions`: what is accepted."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from transom.schema.generation import MAX_TOP_LOGPROBS
from transom.schema.messages import Message
from transom.schema.steering import SteeredBody


class ChatRequest(SteeredBody):
    """A conversation to continue by one assistant's turn."""

    refused: ClassVar[dict[str, str]] = {
        "response_format": "constrained decoding is not offered yet",
        "tools": "tool calls are not offered yet",
        "tool_choice": "tool calls are not offered yet",
        "parallel_tool_calls": "tool calls are not offered yet",
        "functions": "tool calls are not offered yet",
        "function_call": "tool calls are not offered yet",
        "modalities": "answers are text",
        "audio": "answers are text",
        "prediction": "predicted outputs are not offered",
        "reasoning_effort": "the models served here have no such dial",
        "store": "every answer is a record; there is nothing to switch on",
        "metadata": "records keep the request; there is no separate metadata",
    }

    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    max_tokens: int | None = Field(default=None, ge=0, le=2**31)
    max_completion_tokens: int | None = Field(
        default=None, ge=0, le=2**31, description="The newer name of `max_tokens`; only one may be given."
    )
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
