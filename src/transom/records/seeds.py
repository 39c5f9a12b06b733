"""Secrets that a server has promised, each kept until the one request that may use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, insert, or_, select

from transom.errors import Conflict, InvalidRequest
from transom.schema.randomness import (
    MOST_PROMISES,
    JointSeed,
    JointSeedBody,
    Promises,
    commitment_of,
    new_secret,
)
from transom.schema.record import rfc3339
from transom.storage.database import Database
from transom.storage.tables import seed_promises

KEPT = timedelta(days=1)
"""For so long a promise waits for its request."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A promise that its request came for."""

    joint: JointSeed
    expires: datetime


class SeedPromises:
    """The promises of all projects.

    Args:
        database: where they lie.
        clock: the time, in UTC.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def make(self, project_id: str, count: int) -> Promises:
        """Draw secrets, and tell what they are promised by.

        Raises:
            Conflict: too many of the project's wait already.
        """
        now = self._clock()
        drawn = {commitment_of(secret): secret for secret in (new_secret() for _ in range(count))}
        rows = [
            {"commitment": commitment, "project_id": project_id, "secret": secret, "expires": now + KEPT}
            for commitment, secret in drawn.items()
        ]

        def write(connection: Connection) -> None:
            own = seed_promises.c.project_id == project_id
            connection.execute(delete(seed_promises).where(own, seed_promises.c.expires <= now))
            waiting: int = connection.execute(select(func.count()).where(own)).scalar_one()
            if waiting + count > MOST_PROMISES:
                raise Conflict(
                    f"{waiting} commitments of this project wait for their requests, and {MOST_PROMISES} are "
                    "the most; use some, or wait until they expire, a day after they were made.",
                    param="count",
                )
            connection.execute(insert(seed_promises), rows)

        await self._database.write(write)
        return Promises(commitments=tuple(drawn), expires=rfc3339(now + KEPT))

    async def take(self, project_id: str, asked: JointSeedBody) -> Taken:
        """Both secrets of a seed. Whoever comes first with a commitment has used it, with whatever nonce.

        Raises:
            InvalidRequest: there is no such promise to this project, or it was used, or has expired.
        """
        now = self._clock()
        theirs = (
            seed_promises.c.commitment == asked.commitment,
            seed_promises.c.project_id == project_id,
            seed_promises.c.expires > now,
            or_(seed_promises.c.nonce.is_(None), seed_promises.c.nonce == asked.nonce),
        )
        used = delete(seed_promises).where(*theirs).returning(seed_promises.c.secret, seed_promises.c.expires)

        def write(connection: Connection) -> Taken | None:
            row = connection.execute(used).one_or_none()
            return None if row is None else Taken(JointSeed(row.secret.hex(), asked.nonce), row.expires)

        taken = await self._database.write(write)
        if taken is None:
            raise InvalidRequest(
                f"The commitment {asked.commitment} is none that waits for this request of the project: it "
                "was used, came with another nonce, has expired, or was never made. Ask for another: "
                "POST /v1/seeds.",
                param="transom.seed.commitment",
                code="unknown_commitment",
            )
        return taken

    async def give_back(self, project_id: str, taken: Taken) -> None:
        """Keep a promise after all: its request was refused, and nothing was told of the secret.

        It stays bound to its nonce. Else a server could refuse until it likes the seed.
        """
        row = {
            "commitment": taken.joint.commitment,
            "project_id": project_id,
            "secret": bytes.fromhex(taken.joint.secret),
            "expires": taken.expires,
            "nonce": taken.joint.nonce,
        }
        await self._database.write(lambda connection: connection.execute(insert(seed_promises), row) and None)
