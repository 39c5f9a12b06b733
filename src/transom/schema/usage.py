"""What was used, and where limits stand, as they are read over HTTP."""

from __future__ import annotations

from pydantic import BaseModel, Field


class LimitView(BaseModel):
    """One limit."""

    account: str = Field(
        description="Whose: `key:…`, `person:…`, `project:…`, `grant:…`, `tier:…`, `model:…`"
    )
    budget: str
    limit: int
    used: int
    held: int = Field(description="For requests that are running")
    remaining: int
    reset_seconds: int | None = Field(description="When it comes back; null where it does not")


class DayView(BaseModel):
    """What was used in one day of UTC."""

    day: str
    requests: int
    tokens: int
    engine_seconds: float
    internals_bytes: int
    released_rank: float = Field(description="In vectors over the whole vocabulary")


class UsageView(BaseModel):
    """Usage of a project, and the limits that a key of it stands under."""

    project: str
    grant: str | None
    scopes: list[str]
    limits: list[LimitView] = Field(description="Of the caller's key, by model where it depends on one")
    days: list[DayView] = Field(description="Days with usage, the oldest first")
