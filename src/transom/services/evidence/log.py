"""The public log, and proof that a record is in it."""

from __future__ import annotations

import asyncio

from sqlalchemy import Connection

from transom.access.keys.callers import Caller
from transom.errors import LogBroken, NotFound, NotVerified
from transom.records.signing import SigningKeyFile
from transom.schema.deployment import Deployment
from transom.schema.envelopes import PublicKeys
from transom.schema.programme import Programme
from transom.services.house import House
from transom.services.metering import allow
from transom.storage.database import Database
from transom.tlog.checkpoints import Checkpoint, open_checkpoint
from transom.tlog.documents import find_document, log_document
from transom.tlog.entries import Entry
from transom.tlog.proofs import Proof
from transom.tlog.sequencing import bind_keys
from transom.tlog.tiles import Tile


def begin(database: Database, log_key: str, signing: SigningKeyFile) -> None:
    """Hold the database to these keys, and log those that sign records. Blocks; before anything is served.

    Raises:
        ConfigurationError: the database was begun with other keys.
    """
    keys = signing.keys()

    def write(connection: Connection) -> None:
        bind_keys(connection, log_key, keys[0].key_id)
        for key in keys:
            log_document(connection, "key", key.document)

    database.write_sync(write)


async def note_deployment(database: Database, deployment: Deployment) -> None:
    """Log a deployment, before it answers anything."""
    await database.write(lambda connection: log_document(connection, "deployment", deployment.document))


async def note_policy(database: Database, programme: Programme) -> None:
    """Log what is offered and by which rules, before anybody asks; grants cite its digest."""
    await database.write(lambda connection: log_document(connection, "policy", programme.content))


def public_keys(house: House) -> PublicKeys:
    """Who signs what this server says."""
    return PublicKeys(log=str(house.log.key), records=house.signing.public())


async def checkpoint(house: House) -> bytes:
    """The newest checkpoint, a signed note.

    Raises:
        NotFound: nothing is published yet.
    """
    note = await asyncio.to_thread(house.log.note)
    if note is None:
        raise NotFound(f"The log has no checkpoint. {_until_published(house)}")
    return note


def _until_published(house: House) -> str:
    """What to expect of what is not published yet."""
    stands = house.progress().stands
    return "It will within seconds; ask again." if stands is None else f"It stands still: {stands}"


async def tile(house: House, path: str) -> bytes:
    """A tile, or a bundle of entries, by its path.

    Raises:
        NotFound: the log has none there.
    """
    found = Tile.parse(path)
    try:
        if found is not None:
            return await asyncio.to_thread(house.log.read, found)
    except NotVerified:
        pass
    raise NotFound(f"The log has nothing at {path[:80]!r}.")


async def document(house: House, digest: str) -> bytes:
    """A document that was logged and is public: a deployment, a key, a policy, a calibration.

    Raises:
        NotFound: there is none of that digest; records are not public.
    """
    found = await house.office.database.read(lambda connection: find_document(connection, digest))
    if found is None:
        raise NotFound(f"The log has no public document {digest[:80]!r}.", param="digest")
    return found


async def receipt(house: House, caller: Caller, record_id: str) -> str:
    """The proof that a record is in the log, as a file of its own (https://c2sp.org/tlog-proof).

    Raises:
        MissingScope: the caller lacks `records:read`.
        NotFound: there is no such record, or it is not published yet.
        LogBroken: the published log is not that of the database.
    """
    await allow(house, caller, "records:read")
    record = await house.records.get(record_id, caller.project_id)
    entry = Entry("record", record.digest)
    return await asyncio.to_thread(_prove, house, entry, record.log_index)


def _prove(house: House, entry: Entry, index: int) -> str:
    note, head = _covering(house, index)
    proof = Proof(index, tuple(house.log.inclusion(index, head.size)), note.decode())
    try:
        proof.verify(entry.content, house.log.key)
    except NotVerified as error:
        raise LogBroken(
            f"The published log has something else in the place of this record: {error.message}."
        ) from error
    return str(proof)


def _covering(house: House, index: int) -> tuple[bytes, Checkpoint]:
    """A checkpoint under which an entry is: one that enough witnesses have cosigned, else the newest."""
    for note in (house.log.cosigned(), house.log.note()):
        head = None if note is None else open_checkpoint(note, house.log.key)[0]
        if note is not None and head is not None and index < head.size:
            return note, head
    raise NotFound(
        f"The record is kept, and not under a checkpoint of the log yet. {_until_published(house)}",
        code="receipt_pending",
    )
