"""Terms and policies over HTTP."""

from __future__ import annotations

from pydantic import Field

from transom.schema.projects import Moment, View


class TermsView(View):
    """One version of one text."""

    version: str = Field(description="Kind and number, such as `privacy-2`")
    kind: str
    text: str
    digest: str = Field(description="SHA-256 of the text in UTF-8")
    published: Moment


class TermsList(View):
    """The versions in force, one for each kind."""

    data: tuple[TermsView, ...]


class AcceptanceView(View):
    """That a person accepted a version."""

    version: str
    digest: str
    accepted: Moment


class Standing(View):
    """What a person has accepted, and what is still asked."""

    accepted: tuple[AcceptanceView, ...]
    asked: tuple[str, ...] = Field(description="Versions in force that are not accepted yet")
