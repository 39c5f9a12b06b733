"""Beacons: a round is named before it comes, and says the same to everybody."""

from datetime import UTC, datetime

import httpx2
import pytest

from transom.errors import ConfigurationError
from transom.records.beacons import BeaconFile, Drand, open_beacon

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
GENESIS = 1_595_431_050
VALUE = "ab" * 32


async def test_a_file_says_what_was_drawn_for_a_day_and_the_first_word_counts(tmp_path):
    beacon = BeaconFile(tmp_path / "dice.txt")
    assert (beacon.name, await beacon.upcoming(NOON)) == ("file:dice.txt", "2026-11-28")
    assert await beacon.value("2026-11-28") is None
    lines = f"# dice of the library\n2026-11-28 {VALUE}\n2026-11-28 {'cd' * 32}\n2026-11-29 zz\n"
    (tmp_path / "dice.txt").write_text(lines)
    assert await beacon.value("2026-11-28") == bytes.fromhex(VALUE)
    assert await beacon.value("2026-11-29") is None
    # What is known already cannot be a lot of today.
    assert await beacon.upcoming(NOON) == "2026-11-29"


def drand(answers):
    def handle(request):
        status, body = answers[request.url.path]
        return httpx2.Response(status, json=body)

    return Drand("https://drand.example/chain", httpx2.MockTransport(handle))


INFO = (200, {"genesis_time": GENESIS, "period": 30})


async def test_a_round_of_drand_is_more_than_ten_minutes_away():
    beacon = drand({"/chain/info": INFO})
    upcoming = int(await beacon.upcoming(NOON))
    starts = GENESIS + 30 * (upcoming - 1)
    assert 600 < starts - NOON.timestamp() <= 630


async def test_what_drand_said_is_read_once_its_round_came():
    paths = {
        "/chain/public/7": (200, {"round": 7, "randomness": VALUE}),
        "/chain/public/8": (425, {"error": "too early"}),
        "/chain/public/9": (200, {"round": 7, "randomness": VALUE}),
        "/chain/public/10": (200, {"round": 10, "randomness": "ab"}),
        "/chain/public/11": (500, {}),
        "/chain/public/12": (200, []),
    }
    beacon = drand(paths)
    assert await beacon.value("7") == bytes.fromhex(VALUE)
    assert await beacon.value("8") is None
    # Another round than the one that was asked for is no answer.
    assert await beacon.value("9") is None
    with pytest.raises(ValueError, match="32 bytes"):
        await beacon.value("10")
    with pytest.raises(httpx2.HTTPError):
        await beacon.value("11")
    with pytest.raises(ValueError, match="JSON objects"):
        await beacon.value("12")


def test_a_beacon_is_an_address_or_a_file(tmp_path):
    assert open_beacon("https://drand.example/").name == "https://drand.example"
    assert open_beacon(str(tmp_path / "dice.txt")).name == "file:dice.txt"
    with pytest.raises(ConfigurationError, match="TRANSOM_BEACON"):
        open_beacon("/nowhere/at/all/dice.txt")
