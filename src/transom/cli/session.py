"""The session of whoever sits at the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from transom.client import Client
from transom.errors import Unauthenticated

SESSION_FILE = Path.home() / ".config" / "transom" / "session"


def session_token(environ: Mapping[str, str] = os.environ, file: Path = SESSION_FILE) -> str:
    """`TRANSOM_SESSION`, or what signing in left in a file.

    Raises:
        Unauthenticated: there is neither.
    """
    token = environ.get("TRANSOM_SESSION", "").strip()
    if not token and file.exists():
        token = file.read_text(encoding="utf-8").strip()
    if not token:
        raise Unauthenticated("You are not signed in: sign in first, or set TRANSOM_SESSION.")
    return token


def signed_in(base_url: str | None) -> Client:
    """A client that speaks for the person, and not for a key."""
    return Client(base_url, session_token())
