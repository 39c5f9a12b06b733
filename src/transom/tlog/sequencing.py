"""Which place in the log an entry has: taken in the transaction of what it speaks of.

So whatever is acknowledged has its place, and a place without an entry cannot be. That an entry is in the
database does not mean that it is published: see `transom.tlog.writer`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, insert, select, update

from transom.errors import ConfigurationError
from transom.storage.prepared import Prepared
from transom.storage.tables import log_entries, log_head
from transom.tlog.tiles import MOST_ENTRY_BYTES

_INSERT = Prepared(insert(log_entries))
_ADVANCE = Prepared(
    update(log_head)
    # The only row there is.
    .values(size=log_head.c.size + bindparam("count"))
    .returning(log_head.c.size)
)


def add_entries(connection: Connection, contents: Sequence[bytes]) -> int:
    """Give entries the next places in the log; the place of the first.

    Others who add wait for this transaction's end, so it is best done last.

    Raises:
        ValueError: an entry is longer than the log's format allows.
    """
    if any(len(content) > MOST_ENTRY_BYTES for content in contents):
        raise ValueError(f"an entry of the log has at most {MOST_ENTRY_BYTES} bytes")
    if not contents:
        return log_size(connection)
    size: int = _ADVANCE.returned(connection, {"count": len(contents)})
    first = size - len(contents)
    rows = [{"place": place, "content": content} for place, content in enumerate(contents, first)]
    _INSERT.execute_each(connection, rows)
    return first


def log_size(connection: Connection) -> int:
    """How many entries there are."""
    size: int = connection.execute(select(log_head.c.size)).scalar_one()
    return size


def published_size(connection: Connection) -> int:
    """How many were published."""
    size: int = connection.execute(select(log_head.c.published)).scalar_one()
    return size


def set_published(connection: Connection, size: int) -> None:
    """Note that so many were published."""
    connection.execute(update(log_head).values(published=size))


def bind_keys(connection: Connection, log_key: str, record_key: str) -> None:
    """Keep one log to a database: whoever writes to it signs with the keys that it began with.

    Args:
        connection: in a transaction that writes.
        log_key: verifier key of the log.
        record_key: id of the first key that signed records.

    Raises:
        ConfigurationError: it began with others.
    """
    given = {"log_key": log_key, "record_key": record_key}
    known = connection.execute(select(log_head.c.log_key, log_head.c.record_key)).one()
    for name, file in (("log_key", "log.key"), ("record_key", "signing.json")):
        bound = getattr(known, name)
        if bound is not None and bound != given[name]:
            raise ConfigurationError(
                f"The key in {file} is not the one that this database was begun with ({bound}). Gateways of "
                f"one database share their keys: copy {file} from another of them, or from its backup."
            )
    connection.execute(update(log_head).values(given))


def read_entries(connection: Connection, start: int, most: int) -> list[bytes]:
    """Entries from a place on, `most` of them.

    Raises:
        LookupError: one is missing in between.
    """
    query = (
        select(log_entries.c.place, log_entries.c.content)
        .where(log_entries.c.place >= start)
        .order_by(log_entries.c.place)
        .limit(most)
    )
    found = connection.execute(query).all()
    for place, row in enumerate(found, start):
        if row.place != place:
            raise LookupError(f"entry {place} of the log is missing in the database")
    return [row.content for row in found]
