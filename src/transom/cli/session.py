"""Who acts on the command line: the session of a person who signed in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from transom.client import Client
from transom.errors import AccessDenied, Forbidden, Unauthenticated

SESSION_FILE = Path.home() / ".transom" / "session"


class NotSignedIn(AccessDenied):
    """No session, or one that has ended."""

    code = "not_signed_in"


def session_token(environ: Mapping[str, str] = os.environ, file: Path = SESSION_FILE) -> str:
    """The session's token: from `TRANSOM_SESSION`, else from the file that signing in leaves.

    Raises:
        NotSignedIn: there is neither.
    """
    token = environ.get("TRANSOM_SESSION", "").strip()
    if not token and file.exists():
        token = file.read_text(encoding="utf-8").strip()
    if not token:
        raise NotSignedIn("You are not signed in here. Sign in, or set TRANSOM_SESSION to a session's token.")
    return token


@contextmanager
def signed_in(base_url: str | None) -> Iterator[Client]:
    """A client that acts as the person who signed in.

    Raises:
        NotSignedIn: nobody did, or the server says that it is over.
    """
    try:
        with Client(base_url, session_token()) as client:
            yield client
    except Unauthenticated as error:
        raise NotSignedIn(f"{error.message} Sign in again, or set TRANSOM_SESSION.") from error
    except Forbidden as error:
        # What a person may not do, no other key of theirs would allow.
        raise AccessDenied(error.message, code=error.reason) from error
