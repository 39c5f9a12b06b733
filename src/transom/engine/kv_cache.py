"""Which pages each sequence holds: setting room aside, sharing prefixes, registering what a step fills.

Registered at schedule time: as soon as a chunk of the step about to run fills a page, the page can be found.
In one forward every layer stores the keys and values of all rows before any row attends, so that a sequence
which is scheduled later into the same step may attend to it already. That is how the endings of one
multiple-choice question share their context although they arrive together. A step that fails takes its
registrations back, and with them the sequences that relied on them.
"""

from __future__ import annotations

from collections.abc import Iterable

from transom.engine.kernels.cache import PAGE
from transom.engine.pages import CachedPage, PagePool, pages_of
from transom.engine.sequence import Sequence

_HEADROOM = 16
"""An admission leaves one page free for so many in use. Those who run grow; without headroom the newcomer
would soon give way to them and start over, again and again."""


class KVCacheManager:
    """The page pool as the scheduler sees it: in sequences and not in pages.

    An admitted sequence has a claim to pages for all its tokens, so that no chunk ever lacks one. The pages
    themselves are taken chunk by chunk; until then they may hold prefixes that a look-up still finds.
    """

    def __init__(self, pages: int, *, prefix_caching: bool = True) -> None:
        self.pool = PagePool(pages)
        self._prefix_caching = prefix_caching
        self._claimed = 0
        self.queries = 0
        """Tokens of the admitted sequences, whose prefixes were looked up."""
        self.hits = 0
        """Tokens among them that were found and not computed again."""

    @property
    def unclaimed(self) -> int:
        """Pages that nobody holds or has a claim to; below 0 while running sequences outgrow the cache."""
        return self.pool.available - self._claimed

    def get_computed_pages(self, sequence: Sequence) -> list[CachedPage]:
        """Registered pages that hold what comes next in `sequence`; it does not hold them yet.

        They never cover the whole sequence: the last token must be computed for there to be logits. A
        sequence that scores its prompt can only use pages that have the scores of their tokens, and none
        while it wants more of them than is kept.
        """
        first = len(sequence.chain)
        if not self._prefix_caching or len(sequence.pages) != first:
            # A page of its own is half full; what follows cannot be anybody's page.
            return []
        found: list[CachedPage] = []
        top, link = sequence.wanted_scores, sequence.link(first)
        for index in range(first, sequence.borrowable):
            page = self.pool.get_cached(link, sequence.page_tokens(index))
            if page is None:
                break
            if top is not None and not (sequence.shares_scores and page.has_scores(top)):
                break
            found.append(page)
            link = page.serial
        return found

    def shortage(self, sequence: Sequence, hits: list[CachedPage]) -> int:
        """How many pages are missing to admit `sequence`, with room for a token more; 0 or less for none."""
        # An idle page that is found counts as available until it is taken; one that is held does not.
        idle = sum(page.ref_count == 0 for page in hits)
        wanted = pages_of(sequence.target + 1) - len(hits) + self.pool.used // _HEADROOM
        return wanted - (self.unclaimed - idle)

    def admit(self, sequence: Sequence, hits: list[CachedPage]) -> None:
        """Give `sequence` the pages found for it and a claim to those for the rest of its tokens."""
        if self._prefix_caching:
            self.queries += sequence.target
        self._take(sequence, hits)
        self.claim_all(sequence)

    def claim_all(self, sequence: Sequence) -> None:
        """Extend the claim of `sequence` to the tokens that were appended to it."""
        missing = pages_of(len(sequence.tokens)) - len(sequence.pages) - sequence.claimed
        sequence.claimed += missing
        self._claimed += missing

    def match(self, sequence: Sequence) -> None:
        """Take over what was registered since `sequence` was admitted, or last computed a part.

        Nothing may be preempted between a match and the step: a sequence that is part of the step stays.
        """
        hits = self.get_computed_pages(sequence)
        self._take(sequence, hits)
        sequence.claimed -= len(hits)
        self._claimed -= len(hits)

    def allocate_slots(self, sequence: Sequence, end: int) -> None:
        """Make room for the positions before `end`, and register the pages that they fill."""
        missing = pages_of(end) - len(sequence.pages)
        if missing > 0:
            sequence.pages.extend(self.pool.get_new() for _ in range(missing))
            sequence.claimed -= missing
            self._claimed -= missing
        if self._prefix_caching:
            for index in range(len(sequence.chain), min(end, sequence.shareable) // PAGE):
                self._register(sequence, index)

    def free(self, sequence: Sequence) -> None:
        """Take everything back that `sequence` holds; what is registered can still be found."""
        self._claimed -= sequence.claimed
        self.pool.release(sequence.pages)
        for page in sequence.fresh:
            # It leaves in the middle of a step that broke: what it registered is not there.
            self.pool.forget(page)
        sequence.rewind()

    def freed_by(self, sequence: Sequence) -> int:
        """How many pages `free` would make available."""
        return sequence.claimed + sum(not self.pool.is_shared(number) for number in sequence.pages)

    def settle(self, sequence: Sequence) -> None:
        """The step has run: what `sequence` registered holds what it says."""
        sequence.settled = len(sequence.chain)
        sequence.took_hits = False
        if sequence.fresh:
            sequence.fresh = []

    def undo(self, sequences: Iterable[Sequence]) -> list[Sequence]:
        """The step has failed: unregister what it was to fill.

        Returns:
            The sequences that held pages of others since that step, all of whose pages have been taken back.
        """
        lost = []
        for sequence in sequences:
            if sequence.took_hits:
                self.free(sequence)
                lost.append(sequence)
                continue
            for page in sequence.fresh:
                self.pool.forget(page)
            sequence.fresh = []
            del sequence.chain[sequence.settled :]
            sequence.forget_step()
        return lost

    def _take(self, sequence: Sequence, hits: list[CachedPage]) -> None:
        if not hits:
            return
        before = sequence.computed
        scores = sequence.wanted_scores is not None
        for page in hits:
            self.pool.touch(page)
            if scores:
                sequence.borrow_scores(len(sequence.pages), page)
            sequence.pages.append(page.number)
            sequence.chain.append(page.serial)
        # The last position found is computed again for its logits, which score the token after it and may not
        # have been looked up for that token. It stores in the shared page the bits that are there already:
        # what a row computes does not depend on who computes it.
        sequence.computed = len(sequence.pages) * PAGE - scores
        sequence.took_hits = True
        self.hits += sequence.computed - before

    def _register(self, sequence: Sequence, index: int) -> None:
        number = sequence.pages[index]
        page = self.pool.register(sequence.link(index), sequence.page_tokens(index), number)
        if page.number == number:
            sequence.fresh.append(page)
        sequence.chain.append(page.serial)
        sequence.promise_scores(index, page)
