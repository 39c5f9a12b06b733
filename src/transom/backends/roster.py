"""Which sequences are with the engine, and which wait in the server until their turn.

Usually all are with the engine, which schedules them. After it died, they are all sent again; but a sequence
that was there at two deaths may be what kills it. Such *suspects* run one at a time and alone: if the engine
dies then, it is known who did it. That one is failed, and nobody else is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

SUSPECT_AFTER = 2
"""Deaths of the engine after which a sequence runs alone."""


class Mortal(Protocol):
    """A sequence that counts the engines which died while it was with them."""

    @property
    def sequence_id(self) -> str:
        """Name of the sequence."""
        ...

    deaths: int


S = TypeVar("S", bound=Mortal)


class Roster(Generic[S]):
    """The sequences in flight, in the order in which they came. `send` hands one to the engine."""

    def __init__(self, send: Callable[[S], None]) -> None:
        self._send = send
        self._held: dict[str, S] = {}
        self._sent: dict[str, S] = {}
        self._alone: S | None = None
        self._up = False

    def __len__(self) -> int:
        return len(self._held) + len(self._sent)

    def __iter__(self) -> Iterator[S]:
        return iter([*self._sent.values(), *self._held.values()])

    @property
    def engine_has_work(self) -> bool:
        """Whether the engine holds a sequence."""
        return bool(self._sent)

    def find(self, sequence_id: str) -> S | None:
        """The sequence that the engine speaks of, if anybody still waits for it."""
        return self._sent.get(sequence_id)

    def add(self, sequence: S) -> None:
        """Take a sequence in; it goes to the engine now, or when its turn has come."""
        self._held[sequence.sequence_id] = sequence
        self._fill()

    def remove(self, sequence: S) -> None:
        """Nobody waits for it any more, or it has ended. If it ran alone, the next one goes to the engine."""
        self._held.pop(sequence.sequence_id, None)
        self._sent.pop(sequence.sequence_id, None)
        if sequence is self._alone:
            self._alone = None
            self._fill()

    def clear(self) -> list[S]:
        """Everyone leaves at once; who they were."""
        gone = list(self)
        self._held, self._sent, self._alone = {}, {}, None
        return gone

    def engine_is_up(self) -> None:
        """A new engine takes sequences."""
        self._up = True
        self._fill()

    def engine_died(self) -> S | None:
        """Everyone waits again. Returns the sequence that is to be failed for it, which is no longer here."""
        self._up = False
        guilty, self._alone = self._alone, None
        if guilty is None:
            for sequence in self._sent.values():
                sequence.deaths += 1
        else:
            del self._sent[guilty.sequence_id]
            # The deaths are explained, so the others may run together; one more makes them suspects again.
            for sequence in self._held.values():
                sequence.deaths = min(sequence.deaths, SUSPECT_AFTER - 1)
        self._held, self._sent = self._sent | self._held, {}
        return guilty

    def _fill(self) -> None:
        if not self._up or self._alone is not None:
            return
        suspect = next((each for each in self._held.values() if each.deaths >= SUSPECT_AFTER), None)
        self._alone = suspect
        for sequence in list(self._held.values()) if suspect is None else [suspect]:
            self._sent[sequence.sequence_id] = self._held.pop(sequence.sequence_id)
            self._send(sequence)
