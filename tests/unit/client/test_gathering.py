"""What goes into a bundle: receipts that are waited for, and tensors that are those on record or refused."""

from __future__ import annotations

import io
import json
import struct
from types import SimpleNamespace

import pytest

from transom.client.bundle.gathering import Gatherer
from transom.client.bundle.results import check_result
from transom.client.receipts import PENDING
from transom.errors import InvalidRequest, NotFound, NotVerified
from transom.schema.canonical import sha256


class Receipts:
    """A server with one receipt, which is not there at first."""

    def __init__(self, missing, code=PENDING):
        self.missing, self.code, self.now = missing, code, 0.0

    def send(self, _operation):
        if self.missing > 0:
            self.missing -= 1
            raise NotFound("not yet", code=self.code)
        return "the receipt"

    def sleep(self, seconds):
        self.now += seconds


def gatherer(server, wait_s, folder):
    return Gatherer(server, folder, wait_s, clock=lambda: server.now, sleep=server.sleep)


def test_a_receipt_that_is_not_there_yet_is_waited_for(tmp_path):
    assert gatherer(Receipts(5), 30, tmp_path)._receipt("rec_x") == "the receipt"


def test_there_is_an_end_to_waiting(tmp_path):
    server = Receipts(10_000)
    with pytest.raises(NotFound, match="not yet"):
        gatherer(server, 3, tmp_path)._receipt("rec_x")
    assert 3 <= server.now < 4


def test_what_will_never_be_there_is_not_waited_for(tmp_path):
    server = Receipts(1, "not_found")
    with pytest.raises(NotFound):
        gatherer(server, 30, tmp_path)._receipt("rec_x")
    assert server.now == 0


def test_a_record_is_named_once(tmp_path):
    with pytest.raises(InvalidRequest, match="twice"):
        gatherer(Receipts(0), 0, tmp_path).records(["rec_x", "rec_x"])


# Tensors.

DATA = struct.pack("<3f", 1.0, 2.0, 3.0)
ON_RECORD = [["a.x", "float32", [3], ["unit"], sha256(DATA)]]
HEADER = {
    "__metadata__": {"record": "rec_x", "axes.a.x": "unit"},
    "a.x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
}


def check(header=HEADER, data=DATA, on_record=ON_RECORD):
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    content = struct.pack("<Q", len(head)) + head + data
    view = SimpleNamespace(id="rec_x", openings={"tensors": {"json": json.dumps(on_record)}})
    return check_result(io.BytesIO(content), len(content), view)


def test_the_tensors_on_record_pass():
    assert check() == 1


def other(**changes):
    return HEADER | {"a.x": HEADER["a.x"] | changes}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data": DATA[:-1] + b"\0"}, "is not the one on record"),
        ({"header": other(dtype="I32")}, "is not the one on record"),
        (
            {"header": HEADER | {"__metadata__": {"record": "rec_x", "axes.a.x": "head"}}},
            "not the one on record",
        ),
        ({"header": HEADER | {"__metadata__": {"record": "rec_y", "axes.a.x": "unit"}}}, "is of 'rec_y'"),
        ({"on_record": []}, "and not in both"),
        ({"on_record": [*ON_RECORD, ["a.y", *ON_RECORD[0][1:]]]}, "and not in both"),
        ({"data": DATA + b"\0"}, "bytes behind the last tensor"),
        ({"data": DATA[:-4]}, "bytes behind the last tensor"),
        ({"header": other(shape=[4])}, "other bytes than its shape"),
        ({"header": other(data_offsets=[4, 16])}, "does not begin where"),
        ({"header": other(data_offsets=[-12, 0])}, "does not begin where"),
        ({"header": other(dtype="F64")}, "no result of a plan"),
        ({"header": {"a.x": HEADER["a.x"]}}, "no result of a plan"),
        ({"header": b"[]"}, "no result of a plan"),
        ({"header": b"{"}, "no result of a plan"),
        ({"header": b"[" * 100_000}, "no result of a plan"),
    ],
)
def test_other_tensors_are_found(changes, reason):
    with pytest.raises(NotVerified, match=reason):
        check(**changes)


def test_a_header_that_is_longer_than_its_file_is_not_read():
    with pytest.raises(NotVerified, match="longer than it"):
        check_result(io.BytesIO(struct.pack("<Q", 1 << 60)), 8, SimpleNamespace(id="rec_x"))
