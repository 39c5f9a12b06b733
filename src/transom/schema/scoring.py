"""`POST /v1/score`: what is accepted."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from transom.schema.generation import MAX_TOP_LOGPROBS
from transom.schema.messages import Message
from transom.schema.wire import MAX_PROMPTS, Body, DrawingBody, PromptMeasuresBody, TokenId

_QUESTIONS = ("prompt", "messages")

_DRAWING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
)
"""What says how a token is drawn, and says nothing where none is."""


def _text_or_ids(value: object) -> object:
    """Name what is wrong, instead of two reports of how it is neither of two types."""
    if isinstance(value, str) or (isinstance(value, list) and all(type(item) is int for item in value)):
        if not value:
            raise PydanticCustomError("text_or_ids", "is empty; send text, or at least one token id")
        return value
    raise PydanticCustomError("text_or_ids", "must be text or a list of token ids")


TextOrIds = Annotated[str | list[TokenId], BeforeValidator(_text_or_ids)]
"""Token ids are taken as they are: nothing is added or stripped."""


class ScoreItem(Body):
    """A question, and an answer to it from anywhere."""

    prompt: TextOrIds | None = Field(default=None, description="Text or token ids that come before.")
    messages: list[Message] | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="A conversation that comes before, in place of `prompt`.",
    )
    completion: TextOrIds = Field(
        description="The answer that is scored, token by token: text, or token ids. Text is split into "
        "tokens apart from what comes before it."
    )

    @model_validator(mode="after")
    def _has_one_question(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError(
                "question", "needs either prompt or messages, and not both", {"field": "prompt"}
            )
        return self


class ScoreRequest(DrawingBody):
    """Answers to score: one, as `prompt` or `messages` with `completion`, or several as `items`."""

    prompt: TextOrIds | None = Field(default=None, description="See `items`; for one answer alone.")
    messages: list[Message] | None = Field(default=None, min_length=1, max_length=4096)
    completion: TextOrIds | None = None
    items: list[ScoreItem] | None = Field(default=None, min_length=1, max_length=MAX_PROMPTS)
    logprobs: int = Field(
        default=0, ge=0, le=MAX_TOP_LOGPROBS, description="Likeliest tokens to tell beside each token."
    )
    measures: PromptMeasuresBody | None = Field(
        default=None, description="What to measure, over the whole vocabulary, at each token of the answers."
    )
    add_special_tokens: bool = Field(
        default=True, description="Whether text prompts get what the tokenizer adds. Answers never do."
    )

    @model_validator(mode="after")
    def _is_one_or_several(self) -> Self:
        alone = [name for name in (*_QUESTIONS, "completion") if getattr(self, name) is not None]
        if self.items is not None and alone:
            raise PydanticCustomError(
                "items", "stands beside items; put it into one of them", {"field": alone[0]}
            )
        if self.items is None and self.completion is None:
            raise PydanticCustomError("missing", "is required, or items", {"field": "completion"})
        if self.items is None and (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError(
                "question", "needs either prompt or messages, and not both", {"field": "prompt"}
            )
        return self

    @model_validator(mode="after")
    def _draws_only_with_a_seed(self) -> Self:
        idle = next((name for name in _DRAWING if name in self.model_fields_set), None)
        if self.seed is None and idle is not None:
            raise PydanticCustomError(
                "drawing", "says how tokens are drawn, and none is without a seed; add seed", {"field": idle}
            )
        return self

    @property
    def asked(self) -> list[ScoreItem]:
        """The answers, one or several."""
        if self.items is not None:
            return self.items
        # Every field of it was checked before.
        return [
            ScoreItem.model_construct(
                prompt=self.prompt, messages=self.messages, completion=self.completion or ""
            )
        ]

    def field(self, index: int, name: str) -> str:
        """What a field of an answer is called in this request."""
        return name if self.items is None else f"items.{index}.{name}"
