"""Applications: what is asked for, what becomes of it, and what each side may say."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from transom.schema.budgets import Quotas
from transom.schema.programme import Models, all_or_names
from transom.schema.wire import Body

State: TypeAlias = Literal[
    "draft",
    "submitted",
    "in_review",
    "changes_asked",
    "approved",
    "declined",
    "withdrawn",
    "expired",
]

Kind: TypeAlias = Literal["new", "renewal", "supplement", "appeal"]
Intent: TypeAlias = Literal["new", "renewal", "supplement"]
"""What approval does: make a grant, extend its dates, or add to its quotas."""

Action: TypeAlias = Literal[
    "create",
    "edit",
    "submit",
    "withdraw",
    "start_review",
    "ask_changes",
    "approve",
    "decline",
    "appeal",
    "comment",
    "expire",
    "pause",
    "resume",
]


def _day(value: object) -> object:
    """A day as text; pydantic alone would also take seconds since 1970."""
    if isinstance(value, date):
        return value
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise PydanticCustomError("day", "must be a day such as 2026-01-31")


Day = Annotated[date, BeforeValidator(_day)]
LongText = Annotated[str, Field(max_length=20_000)]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Version = Annotated[
    int, Field(ge=1, lt=2**31, description="The version that this is about; if it has moved on, 409")
]
Reason = Annotated[str, Field(min_length=1, max_length=20_000)]
Scopes: TypeAlias = Annotated[
    Literal["all"] | list[Annotated[str, Field(min_length=1, max_length=64)]], BeforeValidator(all_or_names)
]


class Asked(Body):
    """What an application asks for. A draft may lack what its tier insists on; `submit` says what."""

    tier: Name
    purpose: LongText = Field(default="", description="The question, and why this model")
    method: LongText = Field(default="", description="What will be done with the answers")
    scopes: Scopes = Field(default="all", description="`all` is every scope that the tier offers")
    models: Models = Field(default="all", description="`all` is every model that the tier offers")
    quotas: Quotas = Field(
        default=Quotas(), description="What is left out is the tier's; of a supplement, what is to be added"
    )
    starts: Day | None = Field(default=None, description="First day; left out, the day of the decision")
    ends: Day | None = Field(default=None, description="Last day; left out, as late as the tier allows")
    institution: LongText = ""
    funding: LongText = ""
    conflicts: LongText = Field(default="", description="Interests that a reader should know of, or `none`")
    ethics: LongText = Field(default="", description="Who could be harmed, and who has approved; or `none`")
    embargo_months: Literal[0, 3, 6, 12] = Field(
        default=0,
        description="How long after it was made each record of the project stays closed. Approval "
        "puts it on the project, unless a longer one is there",
    )


class NewApplication(Asked):
    """Body of `POST /v1/applications`: makes a draft."""

    project: Name
    kind: Intent = "new"
    grant: Name | None = Field(default=None, description="The grant to renew or to supplement")


Resettable: TypeAlias = Literal[
    "purpose",
    "method",
    "scopes",
    "models",
    "quotas",
    "starts",
    "ends",
    "institution",
    "funding",
    "conflicts",
    "ethics",
    "embargo_months",
]

RESETTABLE: tuple[Resettable, ...] = get_args(Resettable)


class Changes(Body):
    """Body of `PATCH /v1/applications/{id}`: the fields to replace."""

    version: Version
    tier: Name | None = None
    purpose: LongText | None = None
    method: LongText | None = None
    scopes: Scopes | None = None
    models: Models | None = None
    quotas: Quotas | None = None
    starts: Day | None = None
    ends: Day | None = None
    institution: LongText | None = None
    funding: LongText | None = None
    conflicts: LongText | None = None
    ethics: LongText | None = None
    embargo_months: Literal[0, 3, 6, 12] | None = None
    reset: list[Resettable] = Field(
        default=[], max_length=20, description="Fields to put back to what they are when left out"
    )


class Act(Body):
    """Body of an action that needs no reason."""

    version: Version
    reason: str = Field(default="", max_length=20_000)


class ReasonedAct(Body):
    """Body of an action that needs one; the other side reads it."""

    version: Version
    reason: Reason


class Refusal(ReasonedAct):
    """Body of `decline`."""

    met: list[str] = Field(default=[], max_length=100, description="The criteria that are met all the same")


class Approval(Act):
    """Body of `approve`. What is left out is granted as asked; less needs a reason, more is refused."""

    met: list[str] = Field(
        default=[], max_length=100, description="The tier's criteria, word for word: each must be ticked"
    )
    scopes: list[str] | None = Field(default=None, max_length=100)
    models: list[str] | None = Field(default=None, max_length=1000)
    quotas: Quotas | None = Field(default=None, description="A budget that is left out is as asked")
    ends: Day | None = None


class Comment(Body):
    """Body of `comment`."""

    text: Reason


class AskedView(BaseModel):
    """What is asked for, as its reader may see it."""

    tier: str
    purpose: str
    method: str
    scopes: Scopes
    models: Models
    quotas: Quotas
    starts: date | None
    ends: date | None
    institution: str | None = Field(description="null in a blind review")
    funding: str
    conflicts: str
    ethics: str
    embargo_months: int


class EventView(BaseModel):
    """One thing that happened to an application."""

    number: int
    at: str
    actor: str = Field(description="A person's id, `operator:…`, `system`; `applicant` in a blind review")
    action: Action
    state: State = Field(description="The state after it")
    reason: str | None
    details: dict[str, Any]


class ApplicationSummary(BaseModel):
    """An application, in a list."""

    id: str
    kind: Kind
    intent: Intent
    state: State
    version: int
    tier: str
    project: str | None = Field(description="null in a blind review")
    applicant: str | None = Field(description="null in a blind review")
    appeal_of: str | None
    grant: str | None = Field(description="The grant that is asked about or was made; null in a blind review")
    created: str
    changed: str
    submitted: str | None = Field(description="For the first time")
    decide_by: str | None = Field(description="By when a decision is promised; null where none is awaited")
    paused: str | None = Field(
        description="Since when it waits, because its project is suspended or archived, or who made it is "
        "suspended; null where nothing stands against it"
    )
    overdue: bool
    decided: str | None
    blind: bool = Field(description="Whether this reader is not shown who asks")
    may: list[Action] = Field(description="What this reader may do with it now")


class ApplicationView(ApplicationSummary):
    """A whole application."""

    asked: AskedView
    events: list[EventView]


class ApplicationPage(BaseModel):
    """Applications, and where their list goes on."""

    data: list[ApplicationSummary]
    after: str | None = Field(description="Pass it as `after` for the next page; null on the last")
