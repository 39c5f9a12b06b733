"""Positions of one sequence, from the ways in which a plan names them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from transom.backends.base import Tokenizer
from transom.errors import InvalidRequest
from transom.schema.plans.sites import Match, Phase, Pos, Span


@dataclass(frozen=True, slots=True)
class Line:
    """The positions that a run has: those of its prompt, and those of what it generates."""

    token_ids: tuple[int, ...]
    """Of the prompt."""
    most: int
    """How many tokens it generates at most. The last one is drawn and never computed."""

    @property
    def prompt(self) -> int:
        """Tokens of the prompt."""
        return len(self.token_ids)

    @property
    def end(self) -> int:
        """One past the last position that can be computed."""
        return self.prompt + max(0, self.most - 1)


def resolve(pos: Pos | None, line: Line, tokenizer: Tokenizer, param: str) -> tuple[int, ...]:
    """The positions, rising.

    Raises:
        InvalidRequest: there is none, or one that is named is not there.
    """
    match pos:
        case str():
            return tuple(range(line.end)) if pos == "all" else (line.prompt - 1,)
        case int():
            return (_one(pos, line, param),)
        case list():
            return _listed(pos, line, param)
        case None:
            raise InvalidRequest("A position is left to a sweep that has none.", param=param)
        case Match():
            return _matched(pos, line, tokenizer, param)
        case Span() | Phase():
            return _ranged(pos, line, param)


def _listed(positions: list[int], line: Line, param: str) -> tuple[int, ...]:
    found = [_one(each, line, f"{param}.{index}") for index, each in enumerate(positions)]
    if any(left >= right for left, right in pairwise(found)):
        raise InvalidRequest("Positions must rise, and each stand once; put them in order.", param=param)
    return tuple(found)


def _one(position: int, line: Line, param: str) -> int:
    found = position + line.prompt if position < 0 else position
    if not 0 <= found < line.end:
        raise InvalidRequest(
            f"There is no position {position}: the prompt has {line.prompt} tokens"
            + (f", and {line.end - line.prompt} positions are computed after it." if line.most else "."),
            param=param,
        )
    return found


def _end(position: int | None, line: Line) -> int:
    if position is None:
        return line.prompt
    return max(0, position + line.prompt) if position < 0 else position


def _some(found: range, end: int, param: str) -> tuple[int, ...]:
    """A range that has positions, all of them before `end`.

    Raises:
        InvalidRequest: it has not.
    """
    if not found or found[-1] >= end:
        raise InvalidRequest(
            f"From {found.start} to {found.stop} are no positions; there are {end}.", param=param
        )
    return tuple(found)


def _ranged(pos: Span | Phase, line: Line, param: str) -> tuple[int, ...]:
    if isinstance(pos, Span) or pos.phase == "prompt":
        return _some(range(_end(pos.start or 0, line), _end(pos.stop, line)), line.prompt, param)
    if line.prompt == line.end:
        raise InvalidRequest(
            "This run computes no generated token; let it generate two at least.", param=param
        )
    last = line.end if pos.stop is None else line.prompt + pos.stop
    return _some(range(line.prompt + (pos.start or 0), last), line.end, param)


def _matched(pos: Match, line: Line, tokenizer: Tokenizer, param: str) -> tuple[int, ...]:
    """The tokens that hold a byte of the text that is looked for."""
    spelled = [tokenizer.token_bytes(token) for token in line.token_ids]
    whole, wanted = b"".join(spelled), pos.match.encode()
    at = -1
    for _ in range(pos.nth + 1):
        at = whole.find(wanted, at + 1)
        if at < 0:
            raise InvalidRequest(
                f"The prompt has no occurrence {pos.nth} of {pos.match[:80]!r}, counted from 0.", param=param
            )
    found, begin = [], 0
    for index, piece in enumerate(spelled):
        if begin < at + len(wanted) and begin + len(piece) > at:
            found.append(index)
        begin += len(piece)
    return tuple(found)
