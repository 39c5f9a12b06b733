"""Mails that are owed are sent once; and again, if their gateway died or the way was closed."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select

from transom.access.people.outbox import BATCH, CLAIM, REVIEWERS, Mail, deliver, owe
from transom.storage.database import Database
from transom.storage.tables import outbox

pytestmark = pytest.mark.anyio

ADDRESSES = {
    "per_ada": ["ada@example.org"],
    REVIEWERS: ["ria@example.org", "rob@example.org"],
}


def addresses(_connection, recipient):
    return ADDRESSES.get(recipient, [])


class Box:
    """Takes mails, unless it is shut."""

    def __init__(self):
        self.mails, self.shut = [], False

    async def send(self, to, subject, text):
        await asyncio.sleep(0)
        if self.shut:
            raise ConnectionRefusedError("nobody listens")
        self.mails.append((to, subject, text))


def owed(stage, *mails):
    return [stage.database.write_sync(lambda c, m=mail: owe(c, m, stage.now)) for mail in mails]


def mail(name="a", recipient="per_ada"):
    return Mail(name, recipient, f"subject {name}", f"text {name}")


async def test_a_mail_is_owed_once_and_sent_once(stage):
    box = Box()
    assert owed(stage, mail(), mail(), mail("b", REVIEWERS)) == [True, False, True]
    assert await deliver(stage.database, box, addresses, stage.now) == 2
    assert [(to, subject) for to, subject, _ in box.mails] == [
        ("ada@example.org", "subject a"),
        ("ria@example.org", "subject b"),
        ("rob@example.org", "subject b"),
    ]
    stage.forward(days=1)
    assert owed(stage, mail()) == [False]
    assert await deliver(stage.database, box, addresses, stage.now) == 0
    assert len(box.mails) == 3


async def test_a_mail_that_was_not_taken_is_tried_again_after_a_while(stage):
    box = Box()
    box.shut = True
    owed(stage, mail())
    assert await deliver(stage.database, box, addresses, stage.now) == 0
    box.shut = False
    stage.forward(seconds=CLAIM.total_seconds() - 1)
    assert await deliver(stage.database, box, addresses, stage.now) == 0
    stage.forward(seconds=1)
    assert await deliver(stage.database, box, addresses, stage.now) == 1
    assert len(box.mails) == 1


async def test_one_mail_that_is_not_taken_does_not_hold_up_the_others(stage):
    class Picky(Box):
        async def send(self, to, subject, text):
            if subject == "subject a":
                raise TimeoutError("too slow")
            await super().send(to, subject, text)

    box = Picky()
    owed(stage, mail("a"), mail("b"))
    assert await deliver(stage.database, box, addresses, stage.now) == 1
    assert [subject for _, subject, _ in box.mails] == ["subject b"]


async def test_a_mail_to_somebody_who_left_is_over(stage):
    box = Box()
    owed(stage, mail("a", "per_gone"))
    assert await deliver(stage.database, box, addresses, stage.now) == 1
    assert box.mails == []
    assert stage.look(select(outbox.c.sent)) == [(stage.now,)]


async def test_gateways_side_by_side_send_each_mail_once(stage):
    box = Box()
    owed(stage, *(mail(f"m{number:03}") for number in range(BATCH)))
    gateways = [Database(str(stage.database._writing.url)) for _ in range(4)]
    sent = await asyncio.gather(*(deliver(gateway, box, addresses, stage.now) for gateway in gateways))
    for gateway in gateways:
        await asyncio.to_thread(gateway.close)
    assert sum(sent) == BATCH
    assert sorted(subject for _, subject, _ in box.mails) == [f"subject m{n:03}" for n in range(BATCH)]


async def test_a_backlog_is_sent_in_order_of_age(stage):
    box = Box()
    for number in range(BATCH + 10):
        owed(stage, mail(f"{999 - number}"))
        stage.now += timedelta(seconds=1)
    assert await deliver(stage.database, box, addresses, stage.now) == BATCH
    assert await deliver(stage.database, box, addresses, stage.now) == 10
    assert [subject for _, subject, _ in box.mails] == [f"subject {999 - n}" for n in range(BATCH + 10)]


async def test_a_mail_is_not_owed_when_its_act_fails(stage):
    def act(connection):
        owe(connection, mail(), stage.now)
        raise ValueError("it did not work")

    with pytest.raises(ValueError, match="did not work"):
        stage.database.write_sync(act)
    assert stage.look(select(outbox)) == []
