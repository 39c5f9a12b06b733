"""Keys over HTTP."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from transom.schema.budgets import Quotas
from transom.schema.projects import Id, Moment, ShortText, View
from transom.schema.wire import Body


class NewKeyBody(Body):
    """Body of `POST /v1/keys`."""

    project: Id = Field(description="Id of the project, `prj_…`")
    name: ShortText = Field(default="", description="What the key is for")
    scopes: list[Annotated[str, Field(max_length=64)]] | None = Field(
        default=None, max_length=64, description="Narrow the key to these; left out, all of the grant's"
    )
    quotas: Quotas | None = Field(default=None, description="Limits of the key's own, beside the grant's")
    days: int | None = Field(default=None, ge=1, le=3650, description="Days until it expires")


class Rotation(Body):
    """Body of `POST /v1/keys/{id}/rotate`."""

    grace_seconds: int = Field(
        default=86_400, ge=0, le=604_800, description="How long the old key goes on working"
    )


class KeyView(View):
    """A key, without its secret."""

    id: str
    project_id: str
    person_id: str | None
    name: str
    created: Moment
    expires: Moment | None
    revoked: Moment | None
    last_used: Moment | None = Field(description="To the minute")
    scopes: frozenset[str] | None = Field(description="Null for all that the grant has")
    quotas: dict[str, int]
    successor: str | None = Field(description="Id of the key that replaces it")
    retires: Moment | None = Field(description="Until when a key that was replaced still works")


class KeyList(View):
    """Keys, oldest first."""

    data: tuple[KeyView, ...]


class NewKeyView(KeyView):
    """A key just made."""

    key: str = Field(repr=False, description="The key itself: shown this once, and never again")
