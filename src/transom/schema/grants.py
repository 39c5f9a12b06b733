"""Grants: what a project may do, how much of it, and until when."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, Field

from transom.schema.applications import Reason
from transom.schema.budgets import Quotas
from transom.schema.programme import Models
from transom.schema.wire import Body

GrantState: TypeAlias = Literal["to_come", "in_force", "expired", "ended"]

ChangeKind: TypeAlias = Literal["renewal", "supplement", "progress", "end"]


class ProgressReport(Body):
    """Body of `POST /v1/grants/{id}/progress`."""

    report: Reason


class Ending(Body):
    """Body of `POST /v1/grants/{id}/end`; the members read the reason."""

    reason: Reason


class ChangeView(BaseModel):
    """One thing that was done to a grant after it was made."""

    number: int
    at: str
    actor: str
    kind: ChangeKind
    reason: str | None
    application: str | None
    quotas: Quotas | None = Field(description="What a supplement added")
    ends: str | None = Field(description="Until when a renewal extended it")


class GrantView(BaseModel):
    """A grant as it stands now."""

    id: str
    project: str
    application: str
    tier: str
    state: GrantState
    scopes: list[str]
    models: Models
    granted: Quotas = Field(description="All that was granted, supplements included")
    quotas: Quotas = Field(description="What may be used now: without what is held back")
    holdback_percent: int = Field(description="Share of the totals that waits for a progress report; 0 after")
    starts: str
    ends: str = Field(description="The first moment at which it is no longer in force")
    embargo_months: int = Field(
        description="The project's when it was given. Renewals and supplements may have lengthened it, and "
        "its researchers changed it: `GET /v1/projects/{id}` says what holds"
    )
    programme: str = Field(description="Digest of the programme under which it was given")
    changes: list[ChangeView]


class GrantPage(BaseModel):
    """Grants."""

    data: list[GrantView]
