"""A record: what is noted of one answer, what its owner reads of it, and what a replay found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from transom.schema.generation import SamplingParams, SequenceResult
from transom.schema.program import TensorInfo

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:transom:record:v6"
PREDICATE_TYPE_5 = "urn:transom:record:v5"
"""The type of earlier records: their seed was picked by one side. Still read."""
PREDICATE_TYPE_4 = "urn:transom:record:v4"
"""The type of those before: they have no writes either. Still read."""
PREDICATE_TYPE_3 = "urn:transom:record:v3"
"""The type of those before: they have no tensors either. Still read."""
PREDICATE_TYPE_2 = "urn:transom:record:v2"
"""The type of those before: they have no measures and no distributions either. Still read."""
PREDICATE_TYPE_1 = "urn:transom:record:v1"
"""The type of those before: stop strings, stop tokens and logit biases stood in the clear. Still read."""
PREDICATE_TYPES = frozenset(
    {
        PREDICATE_TYPE_1,
        PREDICATE_TYPE_2,
        PREDICATE_TYPE_3,
        PREDICATE_TYPE_4,
        PREDICATE_TYPE_5,
        PREDICATE_TYPE,
    }
)
PAYLOAD_TYPE = "application/vnd.in-toto+json"

RecordStatus = Literal["complete", "failed", "aborted"]
SeedSource = Literal["explicit", "server", "joint"]
ReplayLevel = Literal["EXACT", "WITHIN", "OUTSIDE", "UNREPLAYABLE"]


def rfc3339(moment: datetime) -> str:
    """`2026-01-31T09:05:00.000001Z`: UTC, always six digits of microseconds, so that text sorts as time.

    Raises:
        ValueError: the datetime has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError("a record's times have a time zone")
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an answer is not complete."""

    code: str
    """One of the codes of `transom.errors`; public."""
    message: str
    """For the person who asked; private."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """All that is known of one request when its reply ends. A service fills it in; records keep it."""

    record_id: str
    project_id: str
    key_id: str | None
    """None for the anonymous tier."""
    model: str
    deployment: str
    """Digest of the deployment that answered."""
    endpoint: str
    """Path of the door, such as `/v1/chat/completions`."""
    received: datetime
    answered: datetime
    status: RecordStatus
    request: dict[str, Any]
    """The JSON body as it was received."""
    messages: Sequence[dict[str, Any]] | None
    """The conversation; None where the prompt was text or token ids."""
    prompts: Sequence[Sequence[int]]
    """Rendered token ids of each prompt."""
    sampling: SamplingParams
    seed_source: SeedSource
    """Who chose `sampling.seed`."""
    n: int
    """Choices drawn from each prompt."""
    sequences: Sequence[tuple[int, int, SequenceResult]]
    """(index of the prompt, choice, what was generated); shorter than prompts times n after a failure."""
    error: Failure | None = None
    tensors: Sequence[TensorInfo] | None = None
    """What was read inside; None where nothing was asked for."""
    writes: Sequence[dict[str, Any]] | None = None
    """What was written inside every sequence, each tensor as its digest. None where nothing was, and of a
    plan, whose writes stand in `request`."""
    joint: Mapping[str, str] | None = None
    """How the seed was made, where neither side picked it; see `schema.randomness`."""


class Read(BaseModel):
    """Base of what is read over HTTP. Fields that a newer server adds are ignored by an older client."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class RecordSummary(Read):
    """A record in a list."""

    id: str
    created: str = Field(description="RFC 3339, UTC: when the answer was complete, failed or aborted")
    project: str
    model: str
    deployment: str
    endpoint: str
    status: RecordStatus
    sequence: int = Field(description="Number within the project, from 1; a gap shows an omission")
    digest: str = Field(description="SHA-256 of the envelope's payload")


class RecordPage(Read):
    """Part of a project's records, newest first."""

    data: tuple[RecordSummary, ...]
    after: str | None = Field(description="Cursor of the next page; null on the last one")


class Signature(Read):
    """One signature over an envelope."""

    keyid: str
    sig: str


class Envelope(Read):
    """DSSE envelope: https://github.com/secure-systems-lab/dsse/blob/master/envelope.md."""

    payloadType: str = PAYLOAD_TYPE  # noqa: N815 - the name is DSSE's
    payload: str = Field(description="The canonical bytes of the statement, in base64")
    signatures: tuple[Signature, ...] = ()


class RecordView(RecordSummary):
    """A whole record, as its owner reads it."""

    envelope: Envelope
    statement: dict[str, Any] = Field(description="The payload, decoded; holds no prompt and no answer")
    openings: dict[str, Any] | None = Field(
        description="What the statement's commitments commit to; private. Null once it was destroyed"
    )


class Difference(Read):
    """The first token that came out differently."""

    sequence: int = Field(description="Index into the record's output")
    position: int = Field(description="Index of the generated token within that sequence")


class ReplayReport(Read):
    """What running a record again showed."""

    record: str
    level: ReplayLevel
    reason: str | None = Field(None, description="Such as `TOKEN at 17`, `RENDER` or `DEPLOYMENT`")
    first_difference: Difference | None = None
    tokens: int = Field(description="Generated tokens compared")
    elapsed_s: float
