"""Beacons: a round is named before it comes, and nothing is believed that the chain has not signed."""

from datetime import UTC, datetime

import httpx2
import pytest

from tests.unit.schema.quicknet import HASH, INFO, QUICKNET, ROUND, SIGNATURE, WORD
from transom.errors import ConfigurationError, NotVerified
from transom.records.beacons import BeaconFile, Drand, Word, open_beacon

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
VALUE = "ab" * 32
RELAY = "https://drand.example"


async def test_a_file_says_what_was_drawn_for_a_day_and_the_first_word_counts(tmp_path):
    beacon = BeaconFile(tmp_path / "dice.txt")
    assert (beacon.name, await beacon.upcoming(NOON)) == ("file:dice.txt", "2026-11-28")
    assert await beacon.word("2026-11-28") is None
    lines = f"# dice of the library\n2026-11-28 {VALUE}\n2026-11-28 {'cd' * 32}\n2026-11-29 zz\n"
    (tmp_path / "dice.txt").write_text(lines)
    assert await beacon.word("2026-11-28") == Word(bytes.fromhex(VALUE))
    assert await beacon.word("2026-11-29") is None
    # What is known already cannot be a lot of today.
    assert await beacon.upcoming(NOON) == "2026-11-29"


def drand(answers, info=INFO):
    answers = {f"/{HASH}/{path}": answer for path, answer in answers.items()}
    answers |= {f"/{HASH}/info": (200, info)}

    def handle(request):
        status, body = answers[request.url.path]
        return httpx2.Response(status, json=body)

    return Drand(RELAY, HASH, httpx2.MockTransport(handle))


async def test_a_round_of_drand_is_more_than_ten_minutes_away():
    upcoming = int(await drand({}).upcoming(NOON))
    assert 600 < QUICKNET.time_of(upcoming) - NOON.timestamp() <= 603


async def test_what_drand_said_is_read_once_its_round_came():
    paths = {
        f"public/{ROUND}": (200, {"round": ROUND, "signature": SIGNATURE, "randomness": "00" * 32}),
        "public/8": (425, {"error": "too early"}),
        "public/9": (200, {"round": 7, "signature": SIGNATURE}),
        "public/10": (200, {"round": 10, "signature": "ab"}),
        "public/11": (500, {}),
        "public/12": (200, []),
        "public/13": (200, {"round": 13, "signature": SIGNATURE}),
    }
    beacon = drand(paths)
    said = await beacon.word(str(ROUND))
    # The relay's own word for the randomness is not asked for.
    assert said.value.hex() == WORD
    assert (said.spoken.signature, said.spoken.chain) == (SIGNATURE, QUICKNET)
    assert await beacon.word("8") is None
    # Another round than the one that was asked for is no answer.
    assert await beacon.word("9") is None
    with pytest.raises(ValueError, match="signature"):
        await beacon.word("10")
    with pytest.raises(httpx2.HTTPError):
        await beacon.word("11")
    with pytest.raises(ValueError, match="JSON objects"):
        await beacon.word("12")
    with pytest.raises(NotVerified, match="round 13"):
        await beacon.word("13")


@pytest.mark.parametrize(
    "change",
    [
        {"genesis_time": INFO["genesis_time"] - 3},
        {"period": 30},
        {"public_key": "8" + INFO["public_key"][:0:-1]},
        {"schemeID": "pedersen-bls-chained"},
        {"metadata": {"beaconID": "other"}},
        {"metadata": None},
        {"groupHash": None},
    ],
)
async def test_a_relay_that_tells_of_another_chain_is_not_believed(change):
    with pytest.raises(ValueError, match=r"chain|Chain"):
        await drand({}, INFO | change).upcoming(NOON)


def test_a_beacon_is_a_chain_behind_an_address_or_a_file(tmp_path):
    assert open_beacon(f"{RELAY}/{HASH}/").name == f"drand:{HASH}"
    assert open_beacon(str(tmp_path / "dice.txt")).name == "file:dice.txt"
    for wrong in ("/nowhere/at/all/dice.txt", RELAY, f"{RELAY}/public", f"https://me@drand.example/{HASH}"):
        with pytest.raises(ConfigurationError, match="TRANSOM_BEACON"):
            open_beacon(wrong)
