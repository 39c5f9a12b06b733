"""Receipts of records, which are there a moment after the answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from transom.client import operations
from transom.client.operations import Operation
from transom.errors import NotFound

T = TypeVar("T")

PENDING = "receipt_pending"
"""Code of the error that says so."""

_PAUSE = 0.25


class Sends(Protocol):
    """A client, as far as it is needed here."""

    def send(self, operation: Operation[T]) -> T:
        """Carry out a request."""
        ...


def wait_for_receipt(
    client: Sends,
    record_id: str,
    until: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> str:
    """The receipt of a record, a tlog-proof, as soon as it is there.

    Args:
        client: asks the server.
        record_id: of the record.
        until: when to give up, by `clock`, in seconds.
        clock: gives seconds.
        sleep: waits some.

    Raises:
        NotFound: there is no such record, or no receipt in time.
    """
    while True:
        try:
            return client.send(operations.receipt(record_id))
        except NotFound as error:
            if error.reason != PENDING or clock() >= until:
                raise
        sleep(_PAUSE)
