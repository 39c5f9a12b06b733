"""Who gives way to a sequence that waits.

Two rules. Interactive work takes what it needs from batch work. And a project that holds less than its equal
share of what is short takes from the project that holds most.

Nobody is sent to and fro. Under the second rule a sequence gives way only if it has got a token since it was
admitted, and tokens stay: each such preemption is paid for by progress. Batch work that gave way is admitted
again only when nothing interactive waits. And nobody gives way for what would leave its project with less
than it gives the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from transom.engine.fairness import Lane, Lanes
from transom.engine.kv_cache import KVCacheManager
from transom.engine.pages import pages_of
from transom.engine.sequence import Sequence


@dataclass(slots=True)
class _Want:
    """What is still short for one waiting sequence, and who has been named to give it."""

    seats: int
    pages: int
    victims: list[Sequence]

    @property
    def met(self) -> bool:
        return self.seats <= 0 and self.pages <= 0


class PreemptionPolicy:
    """Names victims; the scheduler preempts them."""

    def __init__(self, lanes: Lanes, cache: KVCacheManager, max_num_seqs: int) -> None:
        self._lanes = lanes
        self._cache = cache
        self._max_num_seqs = max_num_seqs

    def next_victim(self) -> Sequence | None:
        """Who gives way when those who run outgrow the cache: the youngest of the most served project."""
        holding = [lane for lane in self._lanes if lane.running]
        return max(holding, key=lambda lane: lane.order).youngest_first[0] if holding else None

    def victims(self, lane: Lane, *, free_seats: int, missing_pages: int) -> list[Sequence] | None:
        """Who gives way to the first that waits in `lane`; None if it has no claim on enough of them."""
        want = _Want(1 - free_seats, missing_pages, [])
        if not lane.is_batch:
            self._name_batch(want)
        if not want.met and not self._name_rival(lane, want):
            return None
        return want.victims

    def _name(self, victim: Sequence, want: _Want) -> None:
        want.victims.append(victim)
        want.seats -= 1
        want.pages -= self._cache.freed_by(victim)

    def _name_batch(self, want: _Want) -> None:
        for lane in sorted(self._lanes.of_class("batch"), key=lambda lane: -lane.counter):
            for victim in lane.youngest_first:
                if want.met:
                    return
                self._name(victim, want)

    def _name_rival(self, lane: Lane, want: _Want) -> bool:
        """Name sequences of the project that holds most of what is short; whether that is fair and enough."""
        lanes = self._lanes.of_class(lane.priority)
        rivals = [other for other in lanes if other is not lane and other.running]
        if not rivals:
            return False
        short_seats, short_pages = want.seats > 0, want.pages > 0
        if short_seats and len(lane.running) >= self._max_num_seqs / len(lanes):
            return False
        asked = lane.held_pages + pages_of(lane.waiting[0].target + 1) if short_pages else 0
        if asked > self._cache.pool.total / len(lanes):
            return False
        rival = max(rivals, key=lambda other: len(other.running) if short_seats else other.held_pages)
        before = len(want.victims)
        for victim in rival.youngest_first:
            if want.met:
                break
            if victim.generated > victim.generated_before:
                self._name(victim, want)
        given = want.victims[before:]
        if not want.met or (short_seats and len(rival.running) - len(given) <= len(lane.running)):
            return False
        lost = sum(len(victim.pages) + victim.claimed for victim in given)
        return not short_pages or rival.held_pages - lost >= asked
