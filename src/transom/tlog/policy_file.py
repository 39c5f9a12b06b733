"""A policy in a file, which may change under who uses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transom.errors import ConfigurationError
from transom.storage.secret_file import Watched
from transom.tlog.policies import Policy, read_policy


class PolicyFile:
    """The policy in a file, read again when it is another one.

    One that cannot be read leaves the last that could: who makes a mistake in it does not lose what was said
    before.

    Args:
        path: of the file.
        on_error: told what is wrong with it, once.

    Raises:
        ConfigurationError: it cannot be read to begin with.
    """

    def __init__(self, path: Path, on_error: Callable[[Exception], None]) -> None:
        self._known = read_policy(path)
        self._watched = Watched(path, read_policy)
        self._on_error = on_error
        self._said = ""

    def latest(self) -> Policy:
        """As it is now."""
        try:
            self._known = self._watched.latest()
            self._said = ""
        except (ConfigurationError, OSError) as error:
            if self._said != str(error):
                self._said = str(error)
                self._on_error(error)
        return self._known
