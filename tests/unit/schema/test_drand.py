"""drand: a chain is what its hash covers, and a word is what it has signed."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from tests.unit.schema.quicknet import HASH, QUICKNET, ROUND, SIGNATURE, WORD
from transom.errors import NotInstalled, NotVerified
from transom.schema.drand import Spoken


def test_the_hash_of_quicknet_is_the_published_one():
    assert (QUICKNET.hash, QUICKNET.name) == (HASH, f"drand:{HASH}")
    for other in ({"period": 4}, {"genesis_time": 1}, {"group_hash": "0" * 64}, {"beacon_id": "default"}):
        assert QUICKNET.model_copy(update=other).hash != HASH


def test_a_published_round_has_its_published_word():
    assert Spoken(chain=QUICKNET, signature=SIGNATURE).word(ROUND).hex() == WORD


@pytest.mark.parametrize(
    ("number", "signature"),
    [
        (ROUND + 1, SIGNATURE),
        # Another point, the same with the other sign, the point at infinity, and none.
        (ROUND, SIGNATURE[:-1] + "c"),
        (ROUND, "9" + SIGNATURE[1:]),
        (ROUND, "c0" + "0" * 94),
        (ROUND, "f" * 96),
    ],
)
def test_what_the_chain_has_not_signed_is_not_its_word(number, signature):
    with pytest.raises(NotVerified, match="signature of round"):
        Spoken(chain=QUICKNET, signature=signature).word(number)


def test_rounds_come_when_the_chain_says():
    assert QUICKNET.time_of(1) == QUICKNET.genesis_time
    for seconds in (QUICKNET.genesis_time, QUICKNET.genesis_time + 2.9, QUICKNET.genesis_time + 3):
        number = QUICKNET.round_after(seconds)
        assert QUICKNET.time_of(number - 1) <= seconds < QUICKNET.time_of(number)
    assert QUICKNET.round_after(0) == 1


def test_a_signature_is_spelled_in_one_way():
    for wrong in (SIGNATURE.upper(), SIGNATURE[2:], ""):
        with pytest.raises(ValidationError):
            Spoken(chain=QUICKNET, signature=wrong)


def test_without_the_extra_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "transom.schema.bls", None)
    with pytest.raises(NotInstalled, match=r"transom\[beacon\]"):
        Spoken(chain=QUICKNET, signature=SIGNATURE).word(ROUND)


def test_checking_a_signature_does_not_let_the_process_recurse_into_its_end():
    program = (
        "import json, sys; before = sys.getrecursionlimit(); import transom.schema.bls\n"
        "assert sys.getrecursionlimit() == before\n"
        "try: json.loads('[' * 200_000)\n"
        "except RecursionError: print('told')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "told\n"), done.stderr
