"""Documents of somebody else's log: those that do not come must not hold up what else is looked at."""

from __future__ import annotations

import time

from transom.client.failures import ServerUnreachable, UnexpectedReply
from transom.errors import NotFound
from transom.tlog.files import LogReader

_PATIENCE = 60.0
"""Seconds that may go into documents that do not come."""


class Documents:
    """Asks a log for its documents, and no more once too much time went into those that did not come.

    Args:
        log: that names them.
    """

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._waited = 0.0

    def fetch(self, digest: str) -> bytes:
        """A document.

        Raises:
            NotFound: it is not shown, or was not asked for.
            NotVerified: it is another one.
        """
        if self._waited > _PATIENCE:
            raise NotFound(f"too much time went into others to ask for {digest}")
        began = time.monotonic()
        try:
            content = self._log.document(digest)
            reason = f"{digest} is not there"
        except (ServerUnreachable, UnexpectedReply) as error:
            content, reason = None, error.message
        if content is None:
            self._waited += time.monotonic() - began
            raise NotFound(reason)
        return content
