"""The sessions that `transom login` keeps: one for each server, in a file that only its owner reads."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from transom.errors import Unauthenticated


class KeptSessions:
    """A file of sessions, by the server's address: what one server gave is never sent to another.

    Args:
        path: else `TRANSOM_SESSION_FILE`, else `transom/sessions.json` in the folder of one's configuration.
    """

    def __init__(self, path: Path | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self.path = path or _usual(environ)

    def get(self, base_url: str) -> str | None:
        """The session at a server.

        Raises:
            Unauthenticated: others can read the file, or it is damaged.
        """
        return self._read().get(base_url)

    def keep(self, base_url: str, session: str) -> None:
        """Remember a session, in the place of the one before."""
        self._write(self._read() | {base_url: session})

    def forget(self, base_url: str) -> None:
        """Forget the session at a server, if there is one."""
        known = self._read()
        if known.pop(base_url, None) is not None:
            self._write(known)

    def _read(self) -> dict[str, str]:
        try:
            with self.path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                content = file.read()
        except FileNotFoundError:
            return {}
        if mode & 0o077:
            raise Unauthenticated(f"{self.path} can be read by others: remove it, and sign in again.")
        try:
            document = json.loads(content)
        except ValueError as error:
            raise Unauthenticated(f"{self.path} is damaged: remove it, and sign in again.") from error
        if not isinstance(document, dict) or not all(isinstance(value, str) for value in document.values()):
            raise Unauthenticated(f"{self.path} is damaged: remove it, and sign in again.")
        return document

    def _write(self, sessions: dict[str, str]) -> None:
        """All of it or nothing, and never for a moment readable by others."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(sessions, file, indent=2)
        draft.replace(self.path)


def _usual(environ: Mapping[str, str]) -> Path:
    named = environ.get("TRANSOM_SESSION_FILE")
    if named:
        return Path(named)
    # The XDG Base Directory Specification, which people follow beyond Linux too.
    folder = environ.get("XDG_CONFIG_HOME")
    return (Path(folder) if folder else Path.home() / ".config") / "transom" / "sessions.json"
