"""A record: what is noted of one answer, what its owner reads of it, and what a replay found."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from transom.schema.generation import SamplingParams, SequenceResult
from transom.schema.program import TensorInfo
from transom.schema.wire import Body

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

MAX_REPLAYS = 512
"""Most records that one request may replay."""

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


MOST_RECORDS = 1 << 53
"""Integers up to here are the same in all JSON."""


class RecordSummary(Read):
    """A record in a list."""

    id: str
    created: str = Field(description="RFC 3339, UTC: when the answer was complete, failed or aborted")
    project: str
    model: str
    deployment: str
    endpoint: str
    status: RecordStatus
    sequence: int = Field(
        ge=1, lt=MOST_RECORDS, description="Number within the project, from 1; a gap shows an omission"
    )
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


MARGIN_CLIP = 0.5
"""Where margins are cut off before they are averaged, in logits: as the authors of Token-DiFR do in their
code, so that one token that could never have been drawn does not outweigh all others."""


class Margins(Read):
    """How far the recorded tokens were from being drawn, in logits: 0 for each that would be.

    Token-DiFR (Karvonen and others, arXiv 2511.20621).
    """

    mean: float = Field(description=f"Over all tokens compared, each margin cut off at {MARGIN_CLIP}")
    largest: float = Field(description="Of those that are finite")
    infinite: int = Field(description="Tokens that a filter (`top_k`, `top_p`, `min_p`) would have removed")

    @classmethod
    def of(cls, margins: Sequence[float]) -> Margins | None:
        """The summary of some margins; None where there are none."""
        if not margins:
            return None
        finite = [margin for margin in margins if math.isfinite(margin)]
        return cls(
            mean=math.fsum(min(margin, MARGIN_CLIP) for margin in margins) / len(margins),
            largest=max(finite, default=0.0),
            infinite=len(margins) - len(finite),
        )


class ReplayReport(Read):
    """What running a record again showed."""

    record: str
    level: ReplayLevel
    reason: str | None = Field(None, description="Such as `TOKEN at 17`, `RENDER` or `DEPLOYMENT`")
    first_difference: Difference | None = None
    tokens: int = Field(description="Generated tokens compared")
    differing: int = Field(
        0, description="Of those, the ones in whose place another would have been drawn after those before it"
    )
    margins: Margins | None = Field(
        None, description="How far the recorded tokens were from being drawn; null where none was judged"
    )
    elapsed_s: float = Field(description="Of records that were replayed together, for all of them")


class ReplayBatch(Body):
    """Records to replay together."""

    ids: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        min_length=1, max_length=MAX_REPLAYS, description="Each once"
    )

    @field_validator("ids")
    @classmethod
    def _each_once(cls, ids: list[str]) -> list[str]:
        twice = next((each for each, count in Counter(ids).items() if count > 1), None)
        if twice is not None:
            raise PydanticCustomError("ids", "names {id} twice", {"id": twice})
        return ids


class ReplayReports(Read):
    """What running several records again showed."""

    data: tuple[ReplayReport, ...] = Field(description="In the order in which they were named")
