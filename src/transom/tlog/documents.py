"""Documents that are public as a whole: each is an entry of the log, by its digest, and shown to everybody.

What was served, who signs, and what was promised before it was tried can be looked up by everybody; records
are not among them.
"""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from transom.schema.canonical import sha256
from transom.storage.tables import log_documents
from transom.tlog.entries import Entry, Kind
from transom.tlog.sequencing import add_entries


def log_document(connection: Connection, kind: Kind, content: bytes) -> int:
    """Give a document its place in the log; the one that it has, where it was logged before.

    Args:
        connection: in a transaction that writes.
        kind: what it is.
        content: canonical bytes.
    """
    digest = sha256(content)
    known = select(log_documents.c.place).where(log_documents.c.digest == digest)
    place: int | None = connection.execute(known).scalar_one_or_none()
    if place is None:
        place = add_entries(connection, [Entry(kind, digest).content])
        row = {"digest": digest, "kind": kind, "place": place, "content": content}
        connection.execute(insert(log_documents).values(row))
    return place


def find_document(connection: Connection, digest: str) -> bytes | None:
    """The document of that digest, if one was logged."""
    query = select(log_documents.c.content).where(log_documents.c.digest == digest)
    return connection.execute(query).scalar_one_or_none()


def documents_of(connection: Connection, kind: Kind) -> list[tuple[int, str, bytes]]:
    """(place, digest, content) of the documents of a kind, in the order in which they were logged."""
    columns = (log_documents.c.place, log_documents.c.digest, log_documents.c.content)
    query = select(*columns).where(log_documents.c.kind == kind).order_by(log_documents.c.place)
    return [(row.place, row.digest, row.content) for row in connection.execute(query)]
