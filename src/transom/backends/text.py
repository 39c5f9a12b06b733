"""From generated tokens to text that is certain: whole characters, and no part of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class TextDecoder(Protocol):
    """Decodes the tokens of one continuation as they come."""

    def step(self, token_id: int) -> str:
        """Text that became certain; empty while a character is incomplete."""
        ...

    def flush(self) -> str:
        """What is left at the end; incomplete bytes become U+FFFD."""
        ...


class StopText:
    """The text of a sequence, up to the first stop string.

    Whether and where a stop string matches depends on the tokens alone: each token is looked at once, in
    order, and the match that begins first wins (the longer one, if two begin together).
    """

    def __init__(self, decoder: TextDecoder, stops: Sequence[str]) -> None:
        self._decoder = decoder
        self._stops = sorted(stops, key=len, reverse=True)
        self._longest = max(map(len, stops), default=0)
        self._text = ""
        self._sent = 0
        self.stopped_by: str | None = None

    def push(self, token_id: int) -> str:
        """Take one token; the text that is certain now. Sets `stopped_by` on a match."""
        return self._advance(self._decoder.step(token_id), self._held_back)

    def finish(self) -> str:
        """No token follows; the rest of the text."""
        if self.stopped_by is not None:
            return ""
        return self._advance(self._decoder.flush(), lambda: 0)

    def _advance(self, piece: str, held_back: Callable[[], int]) -> str:
        begin = max(0, len(self._text) - self._longest + 1)
        self._text += piece
        match = self._first_match(begin)
        if match is not None:
            start, self.stopped_by = match
            self._text = self._text[:start]
        end = len(self._text) - (0 if match else held_back())
        certain, self._sent = self._text[self._sent : end], max(self._sent, end)
        return certain

    def _first_match(self, begin: int) -> tuple[int, str] | None:
        found = [(at, stop) for stop in self._stops if (at := self._text.find(stop, begin)) >= 0]
        return min(found, key=lambda match: match[0], default=None)

    def _held_back(self) -> int:
        """Length of the longest ending that could be the beginning of a stop string."""
        for length in range(min(self._longest - 1, len(self._text)), 0, -1):
            ending = self._text[-length:]
            if any(stop.startswith(ending) for stop in self._stops):
                return length
        return 0
