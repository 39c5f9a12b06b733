"""Seeds that neither side picks: promised once, used once, computed again by whoever sees both secrets."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from transom.errors import Conflict, InvalidRequest
from transom.records.seeds import KEPT, SeedPromises
from transom.schema.randomness import MOST_PROMISES, JointSeed, JointSeedBody, bring_nonces, is_own_seed
from transom.storage.database import Database
from transom.storage.migrate import migrate

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
JOINT = JointSeed("11" * 32, "22" * 16)


class Clock:
    now = NOON

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def promises(tmp_path, clock):
    database = Database(f"sqlite:///{tmp_path}/test.db")
    migrate(database)
    yield SeedPromises(database, clock)
    database.close()


async def asked(promises, project="ada"):
    (brought,) = bring_nonces(await promises.make(project, 1))
    return JointSeedBody(**brought)


def test_the_seed_is_the_hash_that_the_format_says():
    def sized(*parts):
        return b"".join(len(part).to_bytes(8, "big") + part for part in parts)

    promise = hashlib.sha256(sized(b"transom-seed-commitment-v1", b"\x11" * 32)).hexdigest()
    whole = hashlib.sha256(sized(b"transom-joint-seed-v1", b"\x11" * 32, b"\x22" * 16)).digest()
    assert JOINT.commitment == f"sha256:{promise}"
    assert JOINT.seed == int.from_bytes(whole, "big") >> 193
    assert JOINT.seed < 2**63


async def test_a_promise_is_kept_once(promises):
    asking = await asked(promises)
    taken = await promises.take("ada", asking)
    assert (taken.joint.commitment, taken.joint.nonce) == (asking.commitment, asking.nonce)
    with pytest.raises(InvalidRequest, match="none that waits") as refused:
        await promises.take("ada", asking)
    assert (refused.value.param, refused.value.reason) == ("transom.seed.commitment", "unknown_commitment")
    await promises.give_back("ada", taken)
    # A server that refuses until it likes the seed does not get another nonce.
    with pytest.raises(InvalidRequest, match="came with another nonce"):
        await promises.take("ada", JointSeedBody(commitment=asking.commitment, nonce="55" * 16))
    assert await promises.take("ada", asking) == taken


async def test_a_promise_is_kept_to_nobody_else_and_not_for_ever(promises, clock):
    asking = await asked(promises)
    with pytest.raises(InvalidRequest, match="none that waits"):
        await promises.take("grace", asking)
    clock.now = NOON + KEPT
    with pytest.raises(InvalidRequest, match="has expired"):
        await promises.take("ada", asking)


async def test_so_many_may_wait_and_those_that_expire_make_room(promises, clock):
    for _ in range(MOST_PROMISES // 100):
        await promises.make("ada", 100)
    with pytest.raises(Conflict, match=f"{MOST_PROMISES} commitments of this project wait"):
        await promises.make("ada", 1)
    await promises.make("grace", 1)
    clock.now = NOON + KEPT + timedelta(seconds=1)
    assert len((await promises.make("ada", 100)).commitments) == 100


BODY = {"transom": {"seed": {"commitment": JOINT.commitment, "nonce": JOINT.nonce}}}
SAID = {"seed": str(JOINT.seed), "source": "joint", "joint": JOINT.said}


def test_a_seed_is_its_own_if_both_secrets_make_it():
    assert is_own_seed(SAID, BODY)


PICKED = {"seed": "7", "source": "explicit", "joint": None}
DRAWN = PICKED | {"source": "server"}


@pytest.mark.parametrize(
    ("said", "body", "is_own"),
    [
        (PICKED, {"seed": 7}, True),
        (DRAWN, {}, True),
        (DRAWN, {"transom": None, "seed": None}, True),
        (PICKED, {"seed": 8}, False),
        (PICKED, {}, False),
        (DRAWN, {"seed": 7}, False),
        (DRAWN, BODY, False),
        (PICKED, BODY, False),
        (PICKED, {"seed": 7} | BODY, False),
    ],
    ids=["picked", "drawn", "null", "other", "unasked", "said", "ignored", "instead", "both"],
)
def test_a_seed_that_one_side_picks_is_the_one_that_was_asked_for(said, body, is_own):
    assert is_own_seed(said, body) is is_own


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (SAID | {"seed": str(JOINT.seed + 1)}, BODY),
        (SAID | {"source": "server"}, BODY),
        (SAID | {"joint": None}, BODY),
        (SAID | {"joint": JointSeed("33" * 32, JOINT.nonce).said}, BODY),
        (SAID | {"joint": JOINT.said | {"secret": "33" * 32}}, BODY),
        (SAID | {"joint": JointSeed(JOINT.secret, "44" * 16).said}, BODY),
        (SAID | {"joint": "text"}, BODY),
        (SAID, {"transom": {"seed": {"commitment": JOINT.commitment, "nonce": "44" * 16}}}),
        (SAID, {"transom": None}),
        (SAID, {}),
        ({}, BODY),
    ],
    ids=[
        "seed",
        "source",
        "none",
        "other-secret",
        "secret",
        "nonce",
        "text",
        "asked",
        "null",
        "unasked",
        "empty",
    ],
)
def test_a_seed_that_one_side_picked_is_not_joint(said, body):
    assert not is_own_seed(said, body)
