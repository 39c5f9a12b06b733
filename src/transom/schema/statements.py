"""The form of a statement, as a JSON Schema that anybody can check it with (https://json-schema.org).

Statements are made in `transom.records.statement`, where speed matters; here is what they look like. A test
holds one against the other. What binds a statement are its digest and its signature, and no schema.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from transom.schema.generation import FinishReason
from transom.schema.record import PREDICATE_TYPE, STATEMENT_TYPE, RecordStatus, SeedSource

VERSION = PREDICATE_TYPE.rpartition(":")[2]
"""Such as `v6`."""

FILE_NAME = f"record-{VERSION}.schema.json"
"""Among the pages of reference."""


def _only(value: str) -> Any:  # noqa: ANN401  # a type that is made
    """The type of one text."""

    def check(found: str) -> str:
        if found != value:
            raise ValueError(f"it must be {value!r}")
        return found

    return Annotated[str, AfterValidator(check), Field(json_schema_extra={"const": value})]


class Closed(BaseModel):
    """Base of the parts: nothing more may be in them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Digest = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$", description="SHA-256")]
Commitment = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$", description="Salted SHA-256")]
Decimal = Annotated[
    str, Field(pattern=r"^-?([0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?|inf)$", description="Of a float64")
]
Moment = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$",
        description="RFC 3339, UTC",
    ),
]
RecordName = Annotated[str, Field(pattern="^rec_[0-9a-hjkmnp-tv-z]{26}$")]
Count = Annotated[int, Field(ge=0)]


class SubjectDigest(Closed):
    """Of the record's output."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Subject(Closed):
    """The answer."""

    name: RecordName
    digest: SubjectDigest


class Times(Closed):
    """When the request came, and when its answer was complete, failed or aborted."""

    received: Moment
    answered: Moment


class MeasuresAsked(Closed):
    """Which measures were asked for."""

    entropy: bool
    rank: bool
    surprisal: bool
    kl: bool
    top_k_mass: Count


class Sampling(Closed):
    """Every parameter but the seed, as it was applied."""

    max_tokens: Count
    temperature: Decimal
    top_k: int
    top_p: Decimal
    min_p: Decimal
    frequency_penalty: Decimal
    presence_penalty: Decimal
    ignore_eos: bool
    logprobs: Count | None
    prompt_logprobs: Count | None
    measures: MeasuresAsked | None
    prompt_measures: MeasuresAsked | None
    distributions: list[Count]
    prompt_distributions: list[Count]
    stop: Commitment | None
    stop_token_ids: Commitment | None
    logit_bias: Commitment | None


class Asked(Closed):
    """What was asked."""

    endpoint: Annotated[str, Field(pattern="^/v1/")]
    n: Annotated[int, Field(ge=1)]
    sampling: Sampling
    body: Commitment
    messages: Commitment | None
    prompts: list[Commitment]
    writes: Commitment | None


class JointSeed(Closed):
    """How a seed was made that neither side picked."""

    commitment: Digest
    secret: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    nonce: Annotated[str, Field(pattern="^([0-9a-f]{2}){16,64}$")]


class Randomness(Closed):
    """The seed, a signed integer of 64 bits, and who chose it."""

    seed: Annotated[str, Field(pattern="^(0|-?[1-9][0-9]{0,18})$")]
    source: SeedSource
    joint: JointSeed | None


class Output(Closed):
    """A sequence that was generated."""

    prompt_index: Count
    choice: Count
    tokens: Count
    token_ids: Commitment
    text: Commitment
    finish_reason: FinishReason | None


class SequenceEvidence(Closed):
    """Digests of what is known of a sequence; null for what was not asked for."""

    logprobs: Digest
    top: Digest | None
    prompt_logprobs: Digest | None
    measures: Digest | None
    prompt_measures: Digest | None
    distributions: Digest | None
    prompt_distributions: Digest | None


class StatedFailure(Closed):
    """Why an answer is not complete."""

    code: str
    message: Commitment


class StatedProject(Closed):
    """Whose record it is, and the how manieth."""

    id: str
    sequence: Annotated[int, Field(ge=1)]


class Predicate(Closed):
    """What is said of the answer."""

    record: RecordName
    project: StatedProject
    model: str
    deployment: Digest
    time: Times
    status: RecordStatus
    request: Asked
    randomness: Randomness
    output: list[Output]
    evidence: list[SequenceEvidence]
    tensors: Commitment | None
    error: StatedFailure | None


class Statement(Closed):
    """A record's statement: an in-toto Statement v1 whose predicate is an answer of a model."""

    type: _only(STATEMENT_TYPE) = Field(alias="_type")  # type: ignore[valid-type]
    subject: Annotated[list[Subject], Field(min_length=1, max_length=1)]
    predicateType: _only(PREDICATE_TYPE)  # type: ignore[valid-type]  # noqa: N815 - the name is in-toto's
    predicate: Predicate


def json_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of the statements of this version."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:transom:schema:record-{VERSION}",
    }
    return head | Statement.model_json_schema(by_alias=True)
