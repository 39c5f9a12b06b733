"""The page pool: which pages of the cache are free, held, or kept because a later prefix may match them.

A registered page is found by what it holds: the serial of the page before it and its own PAGE token ids,
compared in full. A serial is never used twice, so that a chain of matches spells out a prefix exactly and no
two prefixes can be mistaken for each other; a cache keyed by hashes would only make that unlikely.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from transom.engine.kernels.cache import PAGE
from transom.schema.generation import TokenLogprob

Link = int | str
"""What a page hangs on: the serial of the page before it; at the beginning of a prefix, the salt."""


@dataclass(slots=True, eq=False)
class CachedPage:
    """A full page that others may share."""

    key: tuple[Link, tuple[int, ...]]
    serial: int
    number: int
    """Where in the cache it lies."""
    ref_count: int = 1
    """Sequences that hold it; at 0 it is kept until its room is needed."""
    scores: tuple[TokenLogprob | None, ...] = ()
    """How the position before each of its tokens predicted it, once a request that scores its prompt came
    by; None for the first token of a prompt. A few percent of what the keys and values take."""
    top: int = -1
    """How many most likely tokens each of `scores` lists; -1 while there are none."""
    promised: int = -1
    """The same of the scores that the step about to run will bring."""

    def has_scores(self, top: int) -> bool:
        """Whether scores with `top` most likely tokens are here, or will be once the step has run."""
        return max(self.top, self.promised) >= top

    def keep_scores(self, scores: Iterable[TokenLogprob | None], top: int) -> None:
        """Keep the scores of this page's tokens, unless better ones are here."""
        if top > self.top:
            self.scores, self.top = tuple(scores), top
        if self.top >= self.promised:
            self.promised = -1


class PagePool:
    """Free pages, registered pages, and how many sequences hold each of these.

    A page is free, or held privately by one sequence, or registered. Registered pages that nobody holds are
    *idle*; they are evicted when the free pages run out, the one released longest ago first.
    """

    def __init__(self, pages: int) -> None:
        # Page 0 fills up the tables of short sequences and is never given out.
        self.total = pages - 1
        self._free = list(range(pages - 1, 0, -1))
        self._serials = count()
        self._by_key: dict[tuple[Link, tuple[int, ...]], CachedPage] = {}
        self._by_number: dict[int, CachedPage] = {}
        self._idle: OrderedDict[int, CachedPage] = OrderedDict()

    @property
    def available(self) -> int:
        """Pages that `get_new` can give out."""
        return len(self._free) + len(self._idle)

    @property
    def used(self) -> int:
        """Pages that some sequence holds."""
        return self.total - self.available

    @property
    def cached(self) -> int:
        """Idle pages."""
        return len(self._idle)

    def get_cached(self, link: Link, token_ids: Sequence[int]) -> CachedPage | None:
        """The registered page that holds these tokens after that prefix."""
        return self._by_key.get((link, tuple(token_ids)))

    def touch(self, page: CachedPage) -> None:
        """Hold a registered page."""
        if page.ref_count == 0:
            del self._idle[page.number]
        page.ref_count += 1

    def get_new(self) -> int:
        """A page whose contents nobody needs, for one holder.

        Raises:
            IndexError: none is available; whoever asks has to know that one is.
        """
        if not self._free:
            if not self._idle:
                raise IndexError("no page is available")
            number, page = self._idle.popitem(last=False)
            del self._by_key[page.key], self._by_number[number]
            return number
        return self._free.pop()

    def register(self, link: Link, token_ids: Sequence[int], number: int) -> CachedPage:
        """Let others find the page `number`, which one sequence holds and which will hold these tokens.

        Where two sequences computed the same page side by side, the first one's is registered already. It is
        returned, and the second's stays private.
        """
        key = (link, tuple(token_ids))
        page = self._by_key.get(key)
        if page is None:
            page = CachedPage(key, next(self._serials), number)
            self._by_key[key] = self._by_number[number] = page
        return page

    def forget(self, page: CachedPage) -> None:
        """Let nobody find a page whose contents never came to be; those who hold it hold it still."""
        if self._by_key.get(page.key) is page:
            del self._by_key[page.key]
        if self._idle.get(page.number) is page:
            del self._idle[page.number]
            self._retire(page)

    def release(self, numbers: Sequence[int]) -> None:
        """Take back the pages of one sequence, given in the order of its tokens."""
        # The last page first: an idle page is of no use without those before it, so it is evicted earlier.
        for number in reversed(numbers):
            page = self._by_number.get(number)
            if page is None:
                self._free.append(number)
                continue
            page.ref_count -= 1
            if page.ref_count == 0:
                self._retire(page)

    def is_shared(self, number: int) -> bool:
        """Whether more than one sequence holds the page."""
        page = self._by_number.get(number)
        return page is not None and page.ref_count > 1

    def _retire(self, page: CachedPage) -> None:
        if self._by_key.get(page.key) is page:
            self._idle[page.number] = page
        else:
            del self._by_number[page.number]
            self._free.append(page.number)


def pages_of(positions: int) -> int:
    """How many pages the first `positions` positions take."""
    return -(-positions // PAGE)
