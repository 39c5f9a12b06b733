"""Mails that are owed: written in the transaction of what they tell of, sent once it is on disk.

A mail has a name that says what it is about, so that however many gateways think of it, it is written once.
To send it, a gateway claims it; one that dies meanwhile loses its claim after `CLAIM`, and another sends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import structlog
from sqlalchemy import Connection, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from transom.storage.database import Database
from transom.storage.tables import outbox

log = structlog.get_logger()

REVIEWERS = "reviewers"
"""Recipient that means whoever reviews at the time of sending."""

CLAIM = timedelta(minutes=10)
BATCH = 50


class Mailer(Protocol):
    """Whatever takes mails away."""

    async def send(self, to: str, subject: str, text: str) -> None:
        """Send one mail.

        Raises:
            OSError: it could not be handed over; it stays in the outbox.
        """


Addresses = Callable[[Connection, str], Sequence[str]]
"""The mail addresses of a person's id, or of `REVIEWERS`; none where nobody is to be reached."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that is owed."""

    name: str
    """What it is about, such as `grant:grt_…:ends:7:per_…`."""
    recipient: str
    """A person's id, or `REVIEWERS`."""
    subject: str
    text: str


def owe(connection: Connection, mail: Mail, now: datetime) -> bool:
    """Write a mail into the outbox, unless one of its name is or was there.

    Returns:
        Whether it is new.
    """
    if connection.execute(select(outbox.c.name).where(outbox.c.name == mail.name)).first() is not None:
        return False
    row = {
        "name": mail.name,
        "recipient": mail.recipient,
        "subject": mail.subject,
        "text": mail.text,
        "created": now,
    }
    try:
        with connection.begin_nested():
            connection.execute(insert(outbox).values(row))
    except IntegrityError:
        return False  # another gateway thought of it in the same moment
    return True


async def deliver(database: Database, mailer: Mailer, addresses: Addresses, now: datetime) -> int:
    """Send what is owed.

    Returns:
        How many mails were sent.
    """
    sent = 0
    for mail in await database.write(lambda connection: _claim(connection, now)):
        try:
            for address in await database.read(partial(_look_up, addresses, mail.recipient)):
                await mailer.send(address, mail.subject, mail.text)
        except OSError as error:
            log.warning("mail not sent", mail=mail.name, reason=str(error))
            continue  # its claim runs out, and it is tried again
        await database.write(partial(_note_sent, name=mail.name, now=now))
        sent += 1
    return sent


def _claim(connection: Connection, now: datetime) -> list[Mail]:
    free = or_(outbox.c.claimed.is_(None), outbox.c.claimed <= now - CLAIM)
    due = select(outbox).where(outbox.c.sent.is_(None), free).order_by(outbox.c.created, outbox.c.name)
    claimed = []
    for row in connection.execute(due.limit(BATCH)).all():
        take = update(outbox).where(outbox.c.name == row.name, outbox.c.sent.is_(None), free)
        if connection.execute(take.values(claimed=now)).rowcount == 1:
            claimed.append(Mail(row.name, row.recipient, row.subject, row.text))
    return claimed


def _look_up(addresses: Addresses, recipient: str, connection: Connection) -> Sequence[str]:
    return addresses(connection, recipient)


def _note_sent(connection: Connection, *, name: str, now: datetime) -> None:
    connection.execute(update(outbox).where(outbox.c.name == name).values(sent=now))
