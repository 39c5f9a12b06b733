"""Whether chance has chosen what a challenge hit: by the beacon's word, and not before it was promised."""

from __future__ import annotations

import re
from collections.abc import Iterator

from transom.client.observing.challenge_state import KnownChallenge
from transom.errors import NotVerified
from transom.schema.challenges import Challenge, Lot, Verdict, drawn
from transom.schema.drand import PREFIX
from transom.tlog.checkpoints import Checkpoint, cosigners
from transom.tlog.notes import Note
from transom.tlog.policies import Policy
from transom.tlog.verified import VerifiedLog


def wrong_choice(challenge: Challenge, verdict: Verdict) -> Iterator[str]:
    """Ways in which the entries that were judged are not those that had to be.

    Raises:
        NotVerified: the challenge's checkpoint is none.
    """
    judged = [found.index for found in verdict.found]
    if challenge.lot is None:
        if judged != [challenge.index]:
            yield f"Entry {challenge.index} was asked for, and {judged} judged."
        return
    try:
        value = _value(challenge.lot, verdict)
    except NotVerified as error:
        yield f"What the beacon said cannot be believed: {error.message}."
        return
    head = Checkpoint.parse(Note.parse(challenge.checkpoint).text)
    expected = list(drawn(head.root, value, head.size, challenge.lot.count))
    if judged != expected:
        yield f"The lot falls on {expected}, and {judged} were judged."


def undated(
    known: KnownChallenge,
    challenge: Challenge,
    verdict: Verdict,
    verified: VerifiedLog,
    policy: Policy | None,
) -> Iterator[str]:
    """Why it is not known that a challenge was in the log before the beacon spoke.

    A file says no times, and who has not looked before and names no policy believes nobody who could tell;
    then this is silent.

    Raises:
        NotVerified: the lot names no round of the chain.
    """
    if challenge.lot is None or not challenge.lot.beacon.startswith(PREFIX) or verdict.spoken is None:
        return
    spoke = verdict.spoken.chain.time_of(_number(challenge.lot))
    if known.seen < spoke:
        return
    if known.absent is not None and known.absent >= spoke:
        yield f"It was not in the log yet when round {challenge.lot.round} of the beacon came."
        return
    if policy is None:
        return
    if verdict.shown is None:
        yield f"No witness has seen it before round {challenge.lot.round} of the beacon."
        return
    try:
        head, note = policy.verify(verdict.shown)
        times = cosigners(note, [witness.key for witness in policy.witnesses.values()])
    except NotVerified as error:
        yield f"The checkpoint that dates it is not believed: {error.message}."
        return
    if head.size <= known.place or not verified.begins_with(head):
        yield "The checkpoint that dates it does not have it."
    elif not policy.has_quorum([key for key, seen in times.items() if seen < spoke]):
        yield f"Witnesses saw it only after round {challenge.lot.round} of the beacon."


def _value(lot: Lot, verdict: Verdict) -> bytes:
    """What the beacon said.

    Raises:
        NotVerified: it is not shown that it did.
    """
    try:
        value = bytes.fromhex(verdict.value or "")
    except ValueError:
        raise NotVerified("it is not spelled as it has to be") from None
    if lot.beacon.startswith(PREFIX):
        if verdict.spoken is None or verdict.spoken.chain.name != lot.beacon:
            raise NotVerified(f"there is no signature of {lot.beacon}")
        if verdict.spoken.word(_number(lot)) != value:
            raise NotVerified("the value is not made of the signature")
    if not value:
        raise NotVerified("there is no value")
    return value


def _number(lot: Lot) -> int:
    """The round of a chain that a lot names.

    Raises:
        NotVerified: it is none.
    """
    if not re.fullmatch("[1-9][0-9]{0,14}", lot.round):
        raise NotVerified(f"{lot.round[:40]!r} is no round of drand")
    return int(lot.round)
