"""Who acts on the command line: the session of a person who signed in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from transom.client import Client
from transom.client.kept import KeptSessions
from transom.errors import AccessDenied, Forbidden, Unauthenticated


class NotSignedIn(AccessDenied):
    """No session, or one that has ended."""

    code = "not_signed_in"


def session_token(
    base_url: str, environ: Mapping[str, str] = os.environ, kept: KeptSessions | None = None
) -> str:
    """The session at a server: `TRANSOM_SESSION`, else the one that `transom login` keeps for it.

    Raises:
        NotSignedIn: there is neither.
    """
    token = environ.get("TRANSOM_SESSION", "").strip() or (kept or KeptSessions()).get(base_url)
    if not token:
        raise NotSignedIn(
            f"You are not signed in to {base_url}: run `transom login EMAIL`, or set TRANSOM_SESSION."
        )
    return token


@contextmanager
def signed_in(base_url: str | None) -> Iterator[Client]:
    """A client that acts as the person who signed in, and not as a key.

    Raises:
        NotSignedIn: nobody did, or the server says that it is over.
    """
    with Client(base_url, api_key="") as nobody:
        address = nobody.base_url
    try:
        with Client(address, session_token(address)) as client:
            yield client
    except Unauthenticated as error:
        raise NotSignedIn(f"{error.message} Run `transom login EMAIL`, or set TRANSOM_SESSION.") from error
    except Forbidden as error:
        # What a person may not do, no other key of theirs would allow.
        raise AccessDenied(error.message, code=error.reason) from error
