"""What travels about people: signing in, and one's own account."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from transom.schema.wire import Body

Carrier = Literal["cookie", "token"]

_SEGMENT = r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*"
_PATH = re.compile(
    rf"/(?:{_SEGMENT}(?:/{_SEGMENT})*/?)?(?:\?[A-Za-z0-9._~=&+:,-]*)?(?:#[A-Za-z0-9._~=&-]*)?", re.ASCII
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _same_site(path: str) -> str:
    """A path on this site and nothing else, whoever reads it: no host, no escapes, no dots, no backslash.

    It is said what a path may hold, and not what it may not: browsers agree with no list of the latter.
    """
    if not _PATH.fullmatch(path):
        raise PydanticCustomError("next_path", "must be a plain path on this site, such as /projects/prj_1")
    return path


def _one_line(text: str) -> str:
    if _CONTROL.search(text):
        raise PydanticCustomError("one_line", "must be one line, without control characters")
    return text.strip()


NextPath = Annotated[
    str,
    Field(max_length=500, description="Path on this site to go to afterwards"),
    AfterValidator(_same_site),
]
Name = Annotated[str, Field(max_length=200), AfterValidator(_one_line)]
Email = Annotated[str, Field(min_length=3, max_length=254, description="One address, in ASCII")]
Code = Annotated[str, Field(min_length=8, max_length=20, description="The code from the mail")]
Token = Annotated[str, Field(max_length=200, description="The part of the link behind `#`: `tl_…`")]
Random = Annotated[str, Field(min_length=1, max_length=64, description="What the step before returned")]
Kind = Annotated[
    Carrier,
    Field(description="`cookie` for a browser; `token` for a program, which sends it as a bearer token"),
]


class View(BaseModel):
    """A reply."""

    model_config = ConfigDict(frozen=True)


class LinkRequest(Body):
    """Who wants a link."""

    email: Email
    session: Kind = "token"
    next: NextPath | None = None


class LinkAsked(View):
    """The same for every address, known here or not."""

    request: str = Field(description="To be sent along with the code from the mail")
    expires: datetime


class LinkProof(Body):
    """The token from the link, or the code beside it."""

    token: Token | None = None
    request: Random | None = None
    code: Code | None = None

    @model_validator(mode="after")
    def _one_proof(self) -> LinkProof:
        by_code = self.request is not None and self.code is not None
        if (self.token is None) != by_code or (self.token is not None and (self.request or self.code)):
            raise PydanticCustomError("one_proof", "must hold either token, or request and code")
        return self


class LinkRedeemed(LinkProof):
    """A link that is used to sign in."""

    session: Kind = "token"


class PersonView(View):
    """A person, to themselves."""

    id: str
    email: str | None = Field(description="Null for who came by a provider alone")
    name: str
    created: datetime
    roles: list[str]


class SessionView(View):
    """A session."""

    id: str
    method: str = Field(description="link, passkey, provider, or session: made from within another")
    session: Carrier
    agent: str = Field(description="What the client called itself")
    created: datetime
    last_seen: datetime = Field(description="To the minute")
    expires: datetime = Field(description="At the latest; after seven days without use it ends earlier")
    current: bool = Field(description="Whether it is the one that asks")


class Welcomed(View):
    """Somebody who has signed in."""

    person: PersonView
    expires: datetime
    token: str | None = Field(default=None, repr=False, description="The session, `ts_…`; null in a cookie")
    next: str | None = None


class ProviderView(View):
    """A provider to sign in with."""

    id: str
    name: str


class ProviderStart(Body):
    """Signing in with a provider."""

    next: NextPath | None = None
    link: bool = Field(
        default=False, description="Add the identity to the account that is signed in, which it must be"
    )


class ProviderUrl(View):
    """Where the browser goes next."""

    url: str


class PasskeyChallenge(View):
    """What an authenticator is asked."""

    challenge: str = Field(description="To be sent along with the answer")
    options: dict[str, Any] = Field(description="For `navigator.credentials`, as JSON")


class PasskeyAnswer(Body):
    """What an authenticator answered."""

    challenge: Random
    credential: dict[str, Any] = Field(description="`PublicKeyCredential.toJSON()`")


class PasskeyNew(PasskeyAnswer):
    """A passkey to keep."""

    name: Name = "Passkey"


class PasskeyView(View):
    """A passkey."""

    id: str
    name: str
    created: datetime
    last_used: datetime | None


class IdentityView(View):
    """An account elsewhere."""

    id: str
    issuer: str
    subject: str
    added: datetime
    last_used: datetime


class AccountChange(Body):
    """What may be changed of one's account."""

    name: Name


class EmailRequest(Body):
    """An address to be added, or to take the place of the one before."""

    email: Email
