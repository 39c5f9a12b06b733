"""Looking over all records at once."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, func, select

from transom.schema.canonical import sha256
from transom.storage.tables import log_entries, log_head, projects, records
from transom.tlog.entries import Entry


def find_gaps(connection: Connection) -> list[str]:
    """Projects whose records are not numbered 1, 2, 3, … up to the project's counter; empty when all are."""
    counted = (
        select(projects.c.id, projects.c.last_sequence, func.count(records.c.id).label("found"))
        .select_from(projects.outerjoin(records, records.c.project_id == projects.c.id))
        .group_by(projects.c.id, projects.c.last_sequence)
    )
    # Numbers are unique in a project and never above the counter, so that counting them is enough.
    return [
        f"project {row.id} has {row.found} records where {row.last_sequence} were written"
        for row in connection.execute(counted)
        if row.found != row.last_sequence
    ]


def find_altered(connection: Connection) -> Iterator[str]:
    """Records whose statement is not the one that their digest is of, which is in the log."""
    for row in connection.execute(select(records.c.id, records.c.digest, records.c.statement)):
        if sha256(row.statement) != row.digest:
            yield f"the statement of record {row.id} was changed"


def find_misplaced(connection: Connection) -> Iterator[str]:
    """Records that are not what the log has in their place, and places of the log without an entry."""
    size = connection.execute(select(log_head.c.size)).scalar_one()
    count, last = connection.execute(select(func.count(), func.max(log_entries.c.place))).one()
    if count != size or (size and last != size - 1):
        yield f"the log has {count} entries where {size} were added"
    query = select(records.c.id, records.c.digest, records.c.log_index, log_entries.c.content).outerjoin(
        log_entries, log_entries.c.place == records.c.log_index
    )
    for row in connection.execute(query):
        if row.content != Entry("record", row.digest).content:
            yield f"record {row.id} is not entry {row.log_index} of the log"
