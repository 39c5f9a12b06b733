"""Challenges: what anybody may have replayed, what lots fall on each day, and how the operator stands."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, timedelta
from functools import partial

import structlog
from sqlalchemy import Connection, select

from transom.access.keys.callers import Caller
from transom.errors import InvalidRequest, NotFound, NotVerified
from transom.records import challenges
from transom.records.beacons import Word
from transom.schema.challenges import (
    Challenge,
    ChallengeCounts,
    ChallengePage,
    ChallengeView,
    Cosigned,
    InForce,
    Judged,
    LogState,
    Lot,
    Transparency,
    Verdict,
    drawn,
)
from transom.schema.record import rfc3339
from transom.services.evidence import replay
from transom.services.evidence.log import checkpoint as published_checkpoint
from transom.services.house import House
from transom.storage.tables import log_documents
from transom.tlog.checkpoints import Checkpoint, cosigners, open_checkpoint
from transom.tlog.documents import find_document
from transom.tlog.entries import Entry
from transom.tlog.notes import Note
from transom.tlog.sequencing import read_entries

log = structlog.get_logger()

DEADLINE = timedelta(days=1)
"""From opening a challenge to the latest verdict that meets it."""

GIVEN_UP = timedelta(days=7)
"""After so long a challenge that was missed is not tried again."""


async def ask(house: House, index: int) -> ChallengeView:
    """Have a logged record replayed, whosever it is; what comes of it is logged within a day.

    Raises:
        NotFound: no such entry is published.
        InvalidRequest: the entry is no record.
        QuotaExceeded: too many were asked for today.
    """
    note, head = await _head(house)
    if not 0 <= index < head.size:
        raise NotFound(f"The log has {head.size} entries, and none of the index {index}.", param="index")
    (content,) = await asyncio.to_thread(house.log.entries, index, index + 1)
    if Entry.parse(content).kind != "record":
        raise InvalidRequest(f"Entry {index} of the log is no record.", param="index", code="no_record")
    now = house.now()
    deadline = now + DEADLINE
    challenge = Challenge(opened=rfc3339(now), deadline=rfc3339(deadline), checkpoint=note, index=index)

    def write(connection: Connection) -> str:
        known = challenges.open_for(connection, index, now)
        if known is not None:
            return known
        challenges.check_room(connection, now, house.rules.most_asked)
        return challenges.open_challenge(connection, challenge, now, deadline)

    digest = await house.office.database.write(write)
    return await find(house, digest)


async def find(house: House, digest: str) -> ChallengeView:
    """One challenge.

    Raises:
        NotFound: there is none of that digest.
    """
    found = await house.office.database.read(
        lambda connection: challenges.view_of(connection, digest, house.now())
    )
    if found is None:
        raise NotFound(f"There is no challenge {digest[:80]!r}.", param="digest")
    return found


async def page(house: House) -> ChallengePage:
    """The newest challenges."""
    now = house.now()
    return ChallengePage(
        data=await house.office.database.read(lambda connection: challenges.newest(connection, now))
    )


async def draw(house: House) -> bool:
    """Open the day's challenge, unless it is opened; whether it was.

    Raises:
        OSError, ValueError, httpx2.HTTPError: the beacon cannot be asked now.
    """
    beacon, now = house.rules.beacon, house.now()
    day = now.astimezone(UTC).date().isoformat()
    database = house.office.database
    if beacon is None or await database.read(lambda connection: challenges.is_drawn(connection, day)):
        return False
    note, _ = await _head(house)
    deadline = now + DEADLINE
    lot = Lot(beacon=beacon.name, round=await beacon.upcoming(now), count=house.rules.count)
    challenge = Challenge(opened=rfc3339(now), deadline=rfc3339(deadline), checkpoint=note, lot=lot)

    def write(connection: Connection) -> bool:
        if challenges.is_drawn(connection, day):
            return False
        challenges.open_challenge(connection, challenge, now, deadline, day)
        return True

    return await database.write(write)


async def show(house: House) -> None:
    """Keep the first cosigned checkpoint that has the day's challenge, which dates it for everybody."""
    note = await asyncio.to_thread(house.log.cosigned)
    if note is None:
        return
    size = open_checkpoint(note, house.log.key)[0].size
    database = house.office.database
    fresh = await database.read(lambda connection: challenges.unshown(connection, size))
    if fresh:
        await database.write(lambda connection: challenges.show(connection, fresh, note))


async def meet(house: House) -> int:
    """Judge the challenges that can be judged now; how many were."""
    await show(house)
    since = house.now() - GIVEN_UP
    database = house.office.database
    waiting = await database.read(lambda connection: challenges.unjudged(connection, since))
    done = 0
    for digest in waiting:
        if house.patience.waits(digest, house.now()):
            continue
        try:
            verdict = await _judge(house, digest)
        except Exception as error:  # noqa: BLE001  # none may keep the others from being met
            # The engine may be busy, or the beacon away: it is tried again, ever more seldom.
            house.patience.failed(digest, house.now())
            log.warning("challenge not judged", challenge=digest, reason=str(error))
            continue
        if verdict is not None:
            done += 1
            await database.write(partial(challenges.judge, verdict=verdict))
    return done


async def _judge(house: House, digest: str) -> Verdict | None:
    """What came of a challenge; None while the beacon has not spoken."""
    database = house.office.database
    content = await database.read(lambda connection: find_document(connection, digest))
    challenge = Challenge.model_validate_json(content or b"")
    indices, word, shown = [challenge.index or 0], None, None
    if challenge.lot is not None:
        word = await _word(house, challenge.lot)
        if word is None:
            return None
        shown = await database.read(lambda connection: challenges.shown(connection, digest))
        head = open_checkpoint(challenge.checkpoint, house.log.key)[0]
        indices = list(drawn(head.root, word.value, head.size, challenge.lot.count))
    found = [await _judge_entry(house, index) for index in indices]
    return Verdict(
        challenge=digest,
        judged=rfc3339(house.now()),
        value=None if word is None else word.value.hex(),
        spoken=None if word is None else word.spoken,
        shown=None if shown is None else shown.decode(),
        found=tuple(found),
    )


async def _word(house: House, lot: Lot) -> Word | None:
    beacon = house.rules.beacon
    if beacon is None or beacon.name != lot.beacon:
        raise ValueError(f"the beacon {lot.beacon} is not the one that is set now")
    return await beacon.word(lot.round)


async def _judge_entry(house: House, index: int) -> Judged:
    (content,) = await house.office.database.read(lambda connection: read_entries(connection, index, 1))
    entry = Entry.parse(content)
    if entry.kind != "record":
        return Judged(index=index, digest=None, level="NO RECORD")
    record = await house.records.at(index)
    if record is None or record.digest != entry.digest:
        return Judged(index=index, digest=entry.digest, level="MISSING")
    # As the operator, who pays, and in the record's project, whose artifacts it may need.
    caller = Caller(project_id=record.project_id, key_id="challenge")
    (finding,) = await replay.judge(house, caller, [record.view()])
    return Judged(index=index, digest=entry.digest, level=finding.level, reason=finding.reason)


async def transparency(house: House) -> Transparency:
    """How the operator stands."""
    now, served = house.now(), house.served()
    digests = [model.deployment.digest for model in served]

    def read(connection: Connection) -> tuple[dict[str, int], ChallengeCounts]:
        query = select(log_documents.c.digest, log_documents.c.place)
        rows = connection.execute(query.where(log_documents.c.digest.in_(digests)))
        return {row.digest: row.place for row in rows}, challenges.count_outcomes(connection, now)

    places, counts = await house.office.database.read(read)
    beacon = house.rules.beacon
    return Transparency(
        log=await _state(house),
        deployments=tuple(
            InForce(model=model.name, deployment=digest, place=places.get(digest))
            for model, digest in zip(served, digests, strict=True)
        ),
        challenges=counts,
        beacon=None if beacon is None else beacon.name,
    )


async def _state(house: House) -> LogState:
    progress = house.progress()
    age = await asyncio.to_thread(house.log.age)
    note = await asyncio.to_thread(house.log.note)
    return LogState(
        origin=house.log.key.name,
        kept=progress.kept,
        published=progress.published,
        checkpoint_age_s=age,
        stands=progress.stands,
        witnesses=_cosigned(house, note),
    )


def _cosigned(house: House, note: bytes | None) -> tuple[Cosigned, ...]:
    """Those of the witnesses that the operator names who have cosigned this checkpoint."""
    if note is None or house.witnesses is None:
        return ()
    known = {witness.key: name for name, witness in house.witnesses.witnesses.items()}
    with suppress(NotVerified):
        times = cosigners(Note.parse(note), known)
        return tuple(Cosigned(name=known[key], at=times[key]) for key in known if key in times)
    return ()


async def _head(house: House) -> tuple[str, Checkpoint]:
    note = await published_checkpoint(house)
    return note.decode(), open_checkpoint(note, house.log.key)[0]
