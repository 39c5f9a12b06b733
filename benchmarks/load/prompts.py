"""Prompts that are new in each round and the same for each server.

A prompt is a function of a seed and of what it is for. No prefix cache can know one from an earlier round,
and everybody who has the seed can send the same ones.
"""

from __future__ import annotations

import random
from typing import Literal

Form = Literal["ids", "text"]
"""How prompts are sent: as lists of token ids, or as words of about one token each."""

Prompt = list[int] | str

FIRST_ID = 256
"""Lowest token id that is drawn; special tokens and single bytes mostly lie below."""

_WORDS = """
time year people way day man thing woman life child world school state family student group country
problem hand part place case week company system program question work government number night point
home water room mother area money story fact month lot right study book eye job word business issue
side kind head house service friend father power hour game line end member law car city community
name president team minute idea kid body information back parent face others level office door
health person art war history party result change morning reason research girl guy moment air
teacher force education the of and to in is that it was for on are with as be at one have this from
by not but what all were when we there can an your which their said if do will each about how up out
them then she many some so these
"""


class Prompts:
    """Draws prompts.

    Args:
        seed: of everything that is drawn.
        form: ids or text.
        vocabulary: ids are drawn below this number.
    """

    def __init__(self, seed: int, form: Form = "ids", vocabulary: int = 49152) -> None:
        if vocabulary <= FIRST_ID:
            raise ValueError(f"a vocabulary of {vocabulary} tokens leaves none to draw")
        self.seed = seed
        self.form = form
        self._vocabulary = vocabulary
        self._words = _WORDS.split()

    def draw(self, tokens: int, *purpose: object) -> Prompt:
        """A prompt of `tokens` token ids, or of as many words."""
        chance = random.Random(f"{self.seed}/{purpose!r}")
        if self.form == "ids":
            return [chance.randrange(FIRST_ID, self._vocabulary) for _ in range(tokens)]
        return " ".join(chance.choice(self._words) for _ in range(tokens))

    def draw_branches(self, count: int, context: int, ending: int, *purpose: object) -> list[Prompt]:
        """`count` prompts with the same first `context` tokens and endings of `ending` tokens each."""
        stem = self.draw(context, *purpose)
        branches: list[Prompt] = []
        for index in range(count):
            tail = self.draw(ending, *purpose, index)
            if isinstance(stem, str):
                branches.append(f"{stem} {tail}")
            elif isinstance(tail, list):
                branches.append(stem + tail)
        return branches

    def draw_seed(self, *purpose: object) -> int:
        """A seed for one request."""
        return random.Random(f"{self.seed}/seed/{purpose!r}").randrange(2**31)
