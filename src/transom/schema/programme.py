"""The programme: what an operator offers, to whom, and how they decide."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from transom.errors import InvalidRequest
from transom.schema.budgets import Quotas
from transom.schema.canonical import canonical_bytes, sha256
from transom.schema.scopes import SCOPES, ScopeView, unknown_scopes
from transom.schema.wire import Body


def all_or_names(value: object) -> object:
    """Say at once what such a field takes, instead of reporting one of both misses."""
    if value != "all" and not isinstance(value, list):
        raise PydanticCustomError("all_or_names", "must be `all`, or a list of names")
    return value


Models: TypeAlias = Annotated[
    Literal["all"] | list[Annotated[str, Field(min_length=1, max_length=200)]], BeforeValidator(all_or_names)
]
"""Names of models, or whichever are served."""

Question: TypeAlias = Literal["purpose", "method", "institution", "funding", "conflicts", "ethics"]
"""What a tier can insist on being told."""

MATRIX_PERCENT = 25
"""How much of any one weight matrix may be told of, in hundredths, where a programme says nothing of it."""

Line = Annotated[str, Field(min_length=1, max_length=300)]
Days = Annotated[int, Field(ge=1, le=3650)]


def known_scopes(names: list[str]) -> list[str]:
    """The names, sorted, if the one table of scopes has them all."""
    if unknown := unknown_scopes(names):
        raise PydanticCustomError(
            "unknown_scope",
            "has no scopes {unknown}; there are {known}",
            {"unknown": ", ".join(unknown), "known": ", ".join(SCOPES)},
        )
    return sorted(set(names))


class Tier(Body):
    """One tier of access."""

    model_config = ConfigDict(frozen=True)

    title: Line
    about: str = Field(default="", max_length=2000, description="For whom it is")
    review: bool = Field(description="Whether people decide; without, the server grants at once")
    asks: list[Question] = Field(default=["purpose"], description="What an application must answer")
    scopes: list[str] = Field(min_length=1, description="What its grants can allow")
    models: Models = Field(default="all", description="Which models its grants can open")
    duration_days: Days = Field(description="How long a grant lasts at most, from the day it is given")
    quotas: Quotas = Field(default=Quotas(), description="What is granted where nothing else is asked for")
    most: Quotas = Field(
        default=Quotas(), description="What a grant may hold at most, supplements included; else `quotas`"
    )
    criteria: list[Line] = Field(default=[], description="What reviewers tick, each of them, to approve")
    decision_days: Days | None = Field(default=None, description="Within how many days it is decided")
    blind: bool = Field(default=False, description="Whether reviewers do not learn who asks")
    holdback_percent: int = Field(
        default=0, ge=0, le=90, description="Share of the totals that waits for a progress report"
    )
    holdback_from_tokens: int = Field(
        default=0, ge=0, description="Nothing is held back from grants of fewer tokens in total"
    )

    _are_scopes = field_validator("scopes")(known_scopes)

    matrix_percent: int = Field(
        default=MATRIX_PERCENT,
        ge=0,
        le=100,
        description="How much of any one weight matrix a project may be told of, in hundredths, by what it "
        "reads inside; a person over all their projects too. 100 is no limit",
    )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.review and (self.decision_days is None or not self.criteria):
            raise _contradiction("is reviewed, and so needs decision_days and criteria")
        if not self.review and (self.decision_days or self.criteria or self.blind or self.holdback_percent):
            raise _contradiction(
                "is not reviewed, and so has no decision_days, criteria, blind or holdback_percent"
            )
        if beyond := self.quotas.beyond(self.ceiling):
            raise _contradiction(f"grants more than its `most` allows: {', '.join(beyond)}")
        return self

    @property
    def ceiling(self) -> Quotas:
        """What a grant of this tier may hold at most."""
        return self.most.filled(self.quotas)

    def holdback(self, quotas: Quotas) -> int:
        """Hundredths of the totals of such a grant that wait for a progress report."""
        tokens = quotas.tokens_total
        large = tokens is None or tokens >= self.holdback_from_tokens
        return self.holdback_percent if large else 0


class Pools(Body):
    """Limits that grants share."""

    model_config = ConfigDict(frozen=True)

    tier: dict[str, Quotas] = Field(default={}, description="Of all grants of a tier together")
    model: dict[str, Quotas] = Field(default={}, description="Of all that is asked of a model")
    person: Quotas = Field(default=Quotas(), description="Of each person, over all their projects")
    key: Quotas = Field(default=Quotas(), description="Of each key")


class Anonymous(Body):
    """What is open to whoever sends no key, on a server that lets them in."""

    model_config = ConfigDict(frozen=True)

    scopes: list[str] = Field(
        default=[name for name, scope in SCOPES.items() if scope.default_tier == "open"],
        description="What they may do",
    )
    quotas: Quotas = Field(default=Quotas(), description="What all of them have together")

    _are_scopes = field_validator("scopes")(known_scopes)


class Programme(Body):
    """What `programme.toml` says."""

    model_config = ConfigDict(frozen=True)

    name: Line
    contact: Line
    terms: Line = Field(description="Where the terms can be read")
    draft_days: Days = Field(default=90, description="After how many days an untouched draft lapses")
    changes_days: Days = Field(default=30, description="How long an applicant has for changes asked of them")
    tiers: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")], Tier] = Field(min_length=1)
    """From the lowest to the highest."""
    pools: Pools = Pools()
    anonymous: Anonymous = Anonymous()

    @model_validator(mode="after")
    def _pools_are_of_tiers(self) -> Self:
        if unknown := sorted(self.pools.tier.keys() - self.tiers.keys()):
            raise _contradiction(f"has a pool of a tier that it does not offer: {', '.join(unknown)}")
        return self

    @property
    def document(self) -> dict[str, Any]:
        """What differs from the defaults, as plain data."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @property
    def content(self) -> bytes:
        """Canonical JSON of `document` and the order of the tiers; comments and layout do not count."""
        return canonical_bytes({"programme": self.document, "order": list(self.tiers)})

    @classmethod
    def of(cls, content: bytes) -> Self:
        """The programme that has this `content`.

        Raises:
            ValueError: it is none that this version knows.
        """
        try:
            told = json.loads(content)
            fields, order = told["programme"], told["order"]
            found = cls.model_validate(fields | {"tiers": {name: fields["tiers"][name] for name in order}})
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"this is no programme: {error}") from None
        if found.content != content:
            raise ValueError("it says more, or less, than is known here")
        return found

    @property
    def digest(self) -> str:
        """SHA-256 of `content`."""
        return sha256(self.content)

    def tier(self, name: str) -> Tier:
        """The tier of that name.

        Raises:
            InvalidRequest: there is none; the message says which there are.
        """
        if name not in self.tiers:
            offered = ", ".join(self.tiers)
            raise InvalidRequest(f"There is no tier {name[:40]!r}; offered are: {offered}.", param="tier")
        return self.tiers[name]

    def rank(self, name: str) -> int:
        """Where the tier stands, from 0 for the lowest."""
        return list(self.tiers).index(name)


def _contradiction(message: str) -> PydanticCustomError:
    return PydanticCustomError("contradiction", "{message}", {"message": message})


class TierView(BaseModel):
    """A tier, as anybody may see it."""

    name: str
    title: str
    about: str
    review: bool
    asks: list[str]
    scopes: list[str]
    models: Models
    duration_days: int
    quotas: Quotas
    most: Quotas
    criteria: list[str]
    decision_days: int | None
    blind: bool
    holdback_percent: int
    holdback_from_tokens: int
    matrix_percent: int


class ProgrammeView(BaseModel):
    """What is offered, and by which rules it is decided."""

    name: str
    contact: str
    terms: str
    digest: str = Field(description="Names this version of the programme; every grant cites one")
    draft_days: int
    changes_days: int
    tiers: list[TierView] = Field(description="From the lowest to the highest")
    scopes: list[ScopeView]

    @classmethod
    def of(cls, programme: Programme) -> ProgrammeView:
        """The view of a programme."""
        tiers = [
            TierView(**tier.model_dump(exclude={"most"}), most=tier.ceiling, name=name)
            for name, tier in programme.tiers.items()
        ]
        return cls(
            **programme.model_dump(include={"name", "contact", "terms", "draft_days", "changes_days"}),
            digest=programme.digest,
            tiers=tiers,
            scopes=[ScopeView.of(scope) for scope in SCOPES.values()],
        )


class TierCounts(BaseModel):
    """How a tier's applications went. `asked` is the sum of the next four."""

    tier: str
    asked: int = Field(description="Applications that were ever submitted, appeals among them")
    granted: int
    declined: int
    pending: int
    closed: int = Field(description="Withdrawn, or lapsed because changes asked for did not come")
    appeals: int = Field(description="Appeals among those asked")
    median_days_to_decide: str | None = Field(
        description="From the first submission to the decision, a decimal with two places"
    )


class ProgrammeStatistics(BaseModel):
    """How applications went, tier by tier; nobody's identity is in it."""

    tiers: list[TierCounts]
