"""A gateway in a process of its own: python -m tests.quotas.worker '{"mode": "rush", …}'."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from datetime import datetime, timedelta

import structlog

from tests.quotas.gateway import KINDS
from transom.access.quotas import Amounts, Charged, Limit
from transom.errors import QuotaExceeded, QuotaUnavailable, StorageError
from transom.storage.database import Database


async def rush(quotas, orders):
    """Many requests at once, each tried until it passes or the time is over."""
    done = {"admitted": 0, "settled": 0, "refused": 0, "unavailable": 0}
    end = time.monotonic() + orders["seconds"]

    async def one(index):
        for attempt in range(10**6):
            try:
                reservation = await quotas.reserve(
                    f"{orders['name']}-{index}-{attempt}",
                    Charged(**orders["charged"]),
                    [Limit(*limit) for limit in orders["limits"]],
                    Amounts(tokens=orders.get("tokens", 10)),
                )
            except QuotaExceeded:
                done["refused"] += 1
            except QuotaUnavailable:
                done["unavailable"] += 1
            else:
                done["admitted"] += 1
                await asyncio.sleep(random.random() / 50)
                try:
                    await reservation.settle(Amounts(tokens=orders.get("used", 10)))
                    done["settled"] += 1
                except StorageError:
                    done["unavailable"] += 1
                return
            if time.monotonic() > end:
                return
            await asyncio.sleep(0.2)

    await asyncio.gather(*(one(index) for index in range(orders["count"])))
    return done


async def hold(quotas, orders):
    """Requests in flight, some of them settled, until somebody kills this process."""
    limits, charged = [Limit(*limit) for limit in orders["limits"]], Charged(**orders["charged"])
    held = [
        await quotas.reserve(f"{orders['name']}-{index}", charged, limits, Amounts(tokens=10))
        for index in range(orders["count"])
    ]
    for reservation in held[: orders["settled"]]:
        await reservation.settle(Amounts(tokens=4))
    print("holding", flush=True)
    await asyncio.sleep(600)


async def storm(quotas, orders):
    """Requests with overlapping accounts, in every order; what went wrong."""
    chance = random.Random(orders["name"])
    writes, wrong = 0, []

    async def one(index):
        nonlocal writes
        charged = Charged(
            key_id=f"k{chance.randrange(3)}",
            person_id=f"per_{chance.randrange(3)}",
            project_id=f"prj_{chance.randrange(3)}",
            tier="open",
            model=f"m{chance.randrange(2)}",
        )
        limits = [
            Limit(account, chance.choice(("requests_in_flight", "tokens_total")), chance.choice((40, 9000)))
            for account in chance.sample(charged.accounts(), 3)
        ]
        chance.shuffle(limits)
        writes += 1
        try:
            reservation = await quotas.reserve(
                f"{orders['name']}-{index}", charged, limits, Amounts(tokens=2)
            )
            writes += 1
            await (
                reservation.settle(Amounts(tokens=chance.randrange(2)))
                if index % 3
                else reservation.release()
            )
        except QuotaExceeded:
            pass
        except Exception as error:  # noqa: BLE001 - reported, and fails the test
            wrong.append(repr(error))

    async def lane(number):
        for index in range(orders["count"]):
            await one(index * 8 + number)

    await asyncio.gather(*(lane(number) for number in range(8)))
    return {"writes": writes, "wrong": wrong}


async def close(quotas):
    """Give everything back, once there is a store to give it back to."""
    end = time.monotonic() + 20
    while True:
        try:
            await quotas.close()
        except StorageError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.1)
        else:
            return


MODES = {"rush": rush, "hold": hold, "storm": storm}


async def main(orders):
    # The report alone is on stdout.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    now = datetime.fromisoformat(orders["now"])
    database = Database(orders["url"])
    quotas = KINDS[orders["kind"]](database, clock=lambda: now, ttl=timedelta(seconds=orders.get("ttl", 30)))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    sweeping = asyncio.create_task(quotas.run(timedelta(seconds=0.1)))
    report = await MODES[orders["mode"]](quotas, orders)
    sweeping.cancel()
    await close(quotas)
    database.close()
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
