"""Ground of all request bodies: strict types, closed fields, and null meaning absent."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from transom.schema.generation import MAX_SEED, MAX_TOP_LOGPROBS, Priority
from transom.schema.measures import Measures

MAX_CHOICES = 128
"""Most sequences that one prompt may ask for."""

MAX_PROMPTS = 256
"""Most prompts in one request."""

MAX_STOPS = 64
"""Most stop strings in one request; each is looked for after each token."""

MAX_POSITIONS = 1024
"""Most positions in one list. How many of them fit an answer depends on the model at hand."""

Text = Annotated[str, Field(min_length=1, max_length=1024)]

TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class Body(BaseModel):
    """A request body. An unknown field is refused, and `"5"` is no integer."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    refused: ClassVar[dict[str, str]] = {}
    """Fields that the world knows and this server does not honour, each with the reason."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:  # noqa: ANN401
        if not isinstance(data, dict):
            return data
        present = {key: value for key, value in data.items() if value is not None}
        for field in cls.refused.keys() & present.keys():
            raise PydanticCustomError(
                "unsupported_parameter",
                "is not supported: {reason}",
                {"field": field, "reason": cls.refused[field]},
            )
        return present


def text_or_list(value: object) -> object:
    """Say at once what a field that takes text or a list takes, instead of reporting both misses."""
    if not isinstance(value, str | list):
        raise PydanticCustomError("text_or_list", "must be text or a list")
    return value


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool = False
    """Send one more chunk, with the usage and no choices, before `[DONE]`."""


class PromptMeasuresBody(Body):
    """What to measure at each token of a prompt but the first."""

    refused: ClassVar[dict[str, str]] = {
        "kl": "a prompt's tokens are not drawn, so there is no distribution to compare with the model's own"
    }

    entropy: bool = Field(default=False, description="Of the model's own distribution, in nats")
    rank: bool = Field(
        default=False, description="Of the token; 1 is the most likely, ties by lower token id"
    )
    surprisal: bool = Field(default=False, description="Of the token, in nats: minus its logprob")
    top_k_mass: int | None = Field(
        default=None, ge=1, le=2**31, description="The k whose k most likely tokens' probability is summed"
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if not self.asked.names:
            raise PydanticCustomError(
                "measures",
                "asks for no measure; name one: {names}",
                {"names": ", ".join(type(self).model_fields)},
            )
        return self

    @property
    def asked(self) -> Measures:
        """The measures that are asked for."""
        fields = self.model_dump(exclude_none=True)
        return Measures(**fields)


class MeasuresBody(PromptMeasuresBody):
    """What to measure at each generated token."""

    refused: ClassVar[dict[str, str]] = {}

    kl: bool = Field(
        default=False,
        description="Divergence of the distribution that the token was drawn from, after penalties, bias, "
        "temperature and filters, from the model's own, in nats",
    )


def _rising(positions: list[int]) -> list[int]:
    """In order; one that is named twice is refused."""
    found = sorted(positions)
    for position, following in pairwise(found):
        if position == following:
            raise PydanticCustomError("positions", "names {position} twice", {"position": position})
    return found


Positions = Annotated[
    list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=MAX_POSITIONS), AfterValidator(_rising)
]
"""Places of tokens, each once."""


class DrawingBody(Body):
    """Fields that say how one token is drawn, by which model, and for whom."""

    model: str | None = Field(
        default=None, description="Which model; may be left out below `/models/{name}`."
    )
    temperature: float = Field(default=1.0, ge=0, le=10)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=-1, le=2**31, description="0 or -1 keeps all tokens.")
    min_p: float = Field(default=0.0, ge=0, le=1)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    # Pydantic copies a default that can change in depth, for each request; a factory's it takes as it is.
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] = Field(
        default_factory=dict,
        max_length=1024,
        description="Token id, as a string, to bias.",
        json_schema_extra={"default": {}},
    )
    seed: int | None = Field(
        default=None,
        ge=-MAX_SEED - 1,
        le=MAX_SEED,
        description="Left out, the server draws one and reports it.",
    )
    service_tier: Literal["auto", "default", "flex"] | None = Field(
        default=None,
        description="`flex` runs when nothing else waits; `auto` is `default`. The reply says which it was.",
    )
    user: str | None = Field(default=None, max_length=256, description="Kept in the record; changes nothing.")

    @property
    def tier(self) -> Literal["default", "flex"] | None:
        """The tier that serves the request, to be told; None where the request says nothing of it."""
        return "default" if self.service_tier == "auto" else self.service_tier

    @property
    def priority(self) -> Priority:
        """What the tier means to the engine's scheduler."""
        return "batch" if self.service_tier == "flex" else "interactive"


class SamplingBody(DrawingBody):
    """Fields that both completion endpoints know."""

    n: int = Field(default=1, ge=1, le=MAX_CHOICES)
    stop: Annotated[
        Text | Annotated[list[Text], Field(max_length=MAX_STOPS)], BeforeValidator(text_or_list)
    ] = Field(
        default_factory=list,
        description="Text before which generation ends; it is not part of the answer.",
        json_schema_extra={"default": []},
    )
    stop_token_ids: list[TokenId] = Field(
        default_factory=list, max_length=64, json_schema_extra={"default": []}
    )
    ignore_eos: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None
    return_token_ids: bool = Field(
        default=False, description="Add `token_ids` and `prompt_token_ids` to choices."
    )
    prompt_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    measures: MeasuresBody | None = Field(
        default=None, description="What to measure, over the whole vocabulary, at each generated token."
    )
    prompt_measures: PromptMeasuresBody | None = Field(
        default=None, description="The same at each token of the prompt but the first."
    )
    distributions: Positions = Field(
        default=[],
        description="Generated tokens, from 0, at which to report the logprobs of the whole vocabulary.",
    )
    prompt_distributions: Positions = Field(
        default=[],
        description="The same of the prompt's tokens; the first one, 0, is predicted by nothing.",
    )

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage
