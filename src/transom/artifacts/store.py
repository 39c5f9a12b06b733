"""Artifacts, kept: content-addressed, sealed, and nobody's business but their project's."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, RowMapping, delete, func, insert, select

from transom.artifacts.arrival import Arrivals, Arrived
from transom.artifacts.content import Located
from transom.errors import InvalidRequest, NotFound, RequestError, StorageError
from transom.schema.artifacts import PREFIX, ArtifactPage, ArtifactTensor, ArtifactView, digest_in
from transom.schema.record import rfc3339
from transom.storage.blobs import Blobs
from transom.storage.blocks import Sealed
from transom.storage.database import Database
from transom.storage.tables import artifacts, projects
from transom.storage.vault import Place, Vault

MAX_PAGE = 100

GRACE = timedelta(hours=1)
"""How old a blob without a row has to be before it is swept: a younger one may be about to get its row."""

_COLUMN = "artifacts.name"


@dataclass(frozen=True, slots=True)
class Artifact:
    """One of a project's artifacts."""

    sha256: str
    number: int
    created: datetime
    tensors: Mapping[str, Located]
    content: Sealed = field(repr=False)

    def view(self) -> ArtifactView:
        """The artifact as its project sees it."""
        return ArtifactView(
            id=PREFIX + self.sha256,
            bytes=self.content.size,
            tensors={
                name: ArtifactTensor(dtype=tensor.dtype, shape=tensor.shape)
                for name, tensor in self.tensors.items()
            },
            created=rfc3339(self.created),
        )


class ArtifactStore:
    """The artifacts of all projects.

    Privacy: rows and blobs say how large an artifact is, when it came, and whose it is, and nothing else.
    Content is sealed by a key of its own, that key and the digest by the project's data key, and the row is
    found by a name that only the data key makes of the digest. Destroying the data key shreds them all.

    Durability: a row is written once its blob is on disk, and a blob deleted once its row is. What is cut off
    in between leaves a blob without a row, which `sweep` deletes.

    Args:
        database: where the rows are.
        vault: what seals them.
        blobs: where the content is.
        arrivals: takes it in.
        clock: the time, in UTC.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        blobs: Blobs,
        arrivals: Arrivals,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._vault = vault
        self._blobs = blobs
        self._arrivals = arrivals
        self._clock = clock

    async def put(
        self, project_id: str, stream: AsyncIterator[bytes], declared: int = 0
    ) -> tuple[Artifact, bool]:
        """Keep what a stream brings; the same bytes again are the same artifact.

        Args:
            project_id: whose it is.
            stream: a safetensors file.
            declared: how long it says that it is.

        Returns:
            The artifact, durable, and whether it is new.

        Raises:
            PayloadTooLarge, QuotaExceeded: it is too large, or the project would have too much.
            InvalidRequest: it is no artifact.
            NotFound: there is no such project.
            StorageError: it is not kept.
        """
        self._arrivals.check(declared, declared)
        with self._arrivals.file() as file:
            arrived = await self._arrivals.receive(project_id, stream, file)
            known = (await self.find(project_id, [arrived.sha256])).get(arrived.sha256)
            if known is not None:
                return known, False
            return await self._keep(project_id, arrived)

    async def get(self, project_id: str, name: str) -> Artifact:
        """An artifact of the project.

        Args:
            project_id: whose.
            name: its id, or its SHA-256 alone.

        Raises:
            NotFound: it has none of that name.
        """
        digest = digest_in(name)
        found = {} if digest is None else await self.find(project_id, [digest])
        if digest is None or digest not in found:
            raise _unknown(name)
        return found[digest]

    async def find(self, project_id: str, digests: Collection[str]) -> dict[str, Artifact]:
        """Those of the project's artifacts that have one of these digests, by digest."""

        def read(connection: Connection) -> list[Artifact]:
            return self._some(connection, project_id, self._named(connection, project_id, digests))

        return {each.sha256: each for each in await self._database.read(read)} if digests else {}

    async def page(self, project_id: str, after: str | None = None, limit: int = 20) -> ArtifactPage:
        """A project's artifacts, newest first.

        Raises:
            InvalidRequest: `after` is no cursor.
        """
        number = 2**63 - 1 if after is None else _number_in(after)
        older = artifacts.c.number < number
        found = await self._database.read(
            lambda connection: self._some(connection, project_id, older, most=limit + 1)
        )
        more = len(found) > limit
        data = tuple(each.view() for each in found[:limit])
        return ArtifactPage(data=data, after=str(found[limit - 1].number) if more else None)

    async def delete(self, project_id: str, name: str) -> None:
        """Delete an artifact; plans on record that took it can then not be replayed.

        Raises:
            NotFound: the project has none of that name.
        """
        digest = digest_in(name)

        def write(connection: Connection) -> list[str]:
            named = self._named(connection, project_id, [] if digest is None else [digest])
            return _take_out(connection, project_id, named)

        blobs = await self._database.write(write)
        if not blobs:
            raise _unknown(name)
        await self._discard(blobs)

    async def shred(self, project_id: str) -> int:
        """Delete all artifacts of a project. Their keys go with its data keys: see `RecordStore.shred`.

        Returns:
            How many there were.
        """
        blobs = await self._database.write(lambda connection: _take_out(connection, project_id))
        await self._discard(blobs)
        return len(blobs)

    def sweep(self) -> int:
        """Delete blobs that have had no row for longer than an upload takes. Blocks.

        Returns:
            How many there were.

        Raises:
            StorageError: they could not be listed, or one not be deleted.
        """
        old = set(self._blobs.old(self._clock() - GRACE))
        kept = self._database.read_sync(lambda c: set(c.execute(select(artifacts.c.blob)).scalars()))
        self._blobs.delete(sorted(old - kept))
        return len(old - kept)

    async def _keep(self, project_id: str, arrived: Arrived) -> tuple[Artifact, bool]:
        blob = secrets.token_hex(16)
        await asyncio.to_thread(self._blobs.put, blob, arrived.blocks())
        write = partial(self._insert, project_id=project_id, arrived=arrived, blob=blob)
        # Where nobody knows whether the row was written, the blob stays until it is swept.
        try:
            found, is_new = await self._database.write(write)
        except RequestError:
            await self._discard([blob])
            raise
        if not is_new:
            await self._discard([blob])
        return found, is_new

    async def _discard(self, blobs: Sequence[str]) -> None:
        """Delete blobs that have no row; what cannot be deleted now is swept later."""
        with suppress(StorageError):
            await asyncio.to_thread(self._blobs.delete, blobs)

    def _insert(
        self, connection: Connection, project_id: str, arrived: Arrived, blob: str
    ) -> tuple[Artifact, bool]:
        """The artifact, and whether it is new: somebody else may have brought it meanwhile."""
        alive = (projects.c.id == project_id) & projects.c.deleted.is_(None)
        if connection.execute(select(projects.c.id).where(alive)).first() is None:
            raise NotFound(f"There is no project {project_id!r}.")
        named = self._named(connection, project_id, [arrived.sha256])
        for known in self._some(connection, project_id, named):
            return known, False
        size = arrived.sealed.size
        self._arrivals.check(size, _total(connection, project_id) + size)
        key = self._vault.charge(connection, project_id, 1)
        last = select(func.coalesce(func.max(artifacts.c.number), 0)).where(_of(project_id))
        row = {
            "project_id": project_id,
            "name": key.name(_COLUMN, bytes.fromhex(arrived.sha256)),
            "number": connection.execute(last).scalar_one() + 1,
            "created": self._clock(),
            "bytes": size,
            "blob": blob,
            "sealed": key.seal(_place(project_id, blob), _packed(arrived)),
        }
        connection.execute(insert(artifacts).values(row))
        return self._some(connection, project_id, artifacts.c.blob == blob)[0], True

    def _named(
        self, connection: Connection, project_id: str, digests: Collection[str]
    ) -> ColumnElement[bool]:
        names = [
            name
            for digest in digests
            for name in self._vault.names(connection, project_id, _COLUMN, bytes.fromhex(digest))
        ]
        return artifacts.c.name.in_(names)

    def _some(
        self, connection: Connection, project_id: str, where: ColumnElement[bool], most: int | None = None
    ) -> list[Artifact]:
        query = select(artifacts).where(_of(project_id), where).order_by(artifacts.c.number.desc())
        rows = connection.execute(query.limit(most)).mappings().all()
        opened = ((row, self._vault.open(connection, _place_of(row), row["sealed"])) for row in rows)
        # Of a project that is being deleted, the key may be gone a moment before the rows.
        return [self._artifact(row, about) for row, about in opened if about is not None]

    def _artifact(self, row: RowMapping, about: bytes) -> Artifact:
        said: dict[str, Any] = orjson.loads(about)
        tensors = {
            name: Located(dtype, tuple(shape), start, stop)
            for name, dtype, shape, start, stop in said["tensors"]
        }
        content = Sealed(bytes.fromhex(said["key"]), said["bytes"], partial(self._blobs.read, row["blob"]))
        return Artifact(said["sha256"], row["number"], row["created"], tensors, content)


def _packed(arrived: Arrived) -> bytes:
    tensors = [
        [name, tensor.dtype, tensor.shape, tensor.start, tensor.stop]
        for name, tensor in arrived.tensors.items()
    ]
    sealed = arrived.sealed
    return orjson.dumps(
        {"sha256": arrived.sha256, "bytes": sealed.size, "key": sealed.key.hex(), "tensors": tensors}
    )


def _take_out(
    connection: Connection, project_id: str, where: ColumnElement[bool] = artifacts.c.number > 0
) -> list[str]:
    """Delete rows; the names of their blobs."""
    gone = delete(artifacts).where(_of(project_id), where).returning(artifacts.c.blob)
    return list(connection.execute(gone).scalars())


def _total(connection: Connection, project_id: str) -> int:
    total = select(func.coalesce(func.sum(artifacts.c.bytes), 0)).where(_of(project_id))
    return int(connection.execute(total).scalar_one())


def _of(project_id: str) -> ColumnElement[bool]:
    return artifacts.c.project_id == project_id


def _place(project_id: str, blob: str) -> Place:
    return Place(project_id, "artifacts.sealed", blob)


def _place_of(row: RowMapping) -> Place:
    return _place(row["project_id"], row["blob"])


def _number_in(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 19):
        raise InvalidRequest(
            "This is not a cursor: pass the `after` of the page before, or leave it out.", param="after"
        )
    return int(cursor)


def _unknown(name: str) -> NotFound:
    return NotFound(f"There is no artifact {name[:80]!r} in this project.", param="id")
