"""What honest answers showed bounds what an honest answer may show."""

import json
import math
import random
from functools import partial

import pytest

from tests.fakes import make_deployment
from transom.errors import InvalidRequest
from transom.schema.calibrations import ALPHA, LEAST_TOKENS, LOGPROB_CLIP, Calibration, Spread, measured
from transom.schema.record import MARGIN_CLIP
from transom.services.evidence.calibrations import accept
from transom.storage.database import Database
from transom.storage.migrate import migrate
from transom.tlog.documents import log_document
from transom.tlog.sequencing import log_size

SPREAD = {"mean": "0.01", "deviation": "0.01", "most": str(MARGIN_CLIP)}
NOON = "2026-11-28T12:00:00.000000Z"


def honest(generator, count):
    """(margin, distance) of tokens: seldom another one, and then by little."""
    return [
        (0.02 * generator.random() if generator.random() < 0.01 else 0.0, abs(generator.gauss(0, 0.01)))
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def calibration():
    generator = random.Random(1)
    answers = [honest(generator, 100) for _ in range(LEAST_TOKENS // 100)]
    return measured("sha256:" + "a" * 64, "sha256:" + "b" * 64, answers, 200, NOON)


def test_mean_and_deviation_are_those_of_the_values():
    spread = Spread.of([0.0, 1.0, math.inf, 7.0], 2.0)
    assert (spread.mean, spread.most) == ("1.25", "2.0")
    assert float(spread.deviation) == pytest.approx(math.sqrt((1.25**2 + 0.25**2 + 2 * 0.75**2) / 3))


@pytest.mark.parametrize("length", [24, 128, 2048])
def test_honest_answers_are_within(calibration, length):
    generator = random.Random(2)
    for _ in range(1000 if length < 500 else 50):
        assert calibration.departs(*zip(*honest(generator, length), strict=True)) is None


@pytest.mark.parametrize("length", [0, 1, 3])
def test_so_few_tokens_that_all_would_be_within_prove_nothing(calibration, length):
    assert calibration.departs([0.0] * length, [0.0] * length) == "SHORT"
    assert calibration.departs([0.5] * length, [0.0] * length) == "SHORT"


def test_a_token_that_a_filter_had_removed_is_outside_unless_honest_ones_were_too(calibration):
    margins, distances = [*[0.0] * 199, math.inf], [0.0] * 200
    assert calibration.departs(margins, distances) == "MARGIN"
    seen = calibration.model_copy(update={"infinite": 3})
    assert seen.departs(margins, distances) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", "1e-300"),
        ("alpha", "0"),
        ("infinite", LEAST_TOKENS + 1),
        ("margin", SPREAD | {"mean": "inf"}),
        ("margin", SPREAD | {"mean": "nan"}),
        ("margin", SPREAD | {"mean": "x"}),
        ("margin", SPREAD | {"mean": "-1.0"}),
        ("margin", SPREAD | {"deviation": "9.0"}),
        ("logprob", SPREAD | {"most": "7.0"}),
    ],
    ids=str,
)
def test_numbers_that_nobody_measured_are_no_calibration(database, calibration, name, value):
    said = json.loads(calibration.content) | {name: value}
    content = Calibration.model_validate(said).content
    with pytest.raises(InvalidRequest, match="none that can be measured"):
        accept(database, content)


@pytest.mark.parametrize(
    ("margin", "distance", "reason"),
    [(0.4, 0.0, "MARGIN"), (math.inf, 0.0, "MARGIN"), (0.0, 0.4, "LOGPROBS"), (0.0, math.nan, "LOGPROBS")],
    ids=["margin", "filtered", "logprob", "none"],
)
def test_what_lies_further_off_is_outside(calibration, margin, distance, reason):
    assert calibration.departs([margin] * 128, [distance] * 128) == reason


def test_the_bound_tightens_with_the_tokens_and_holds_for_any_number(calibration):
    bounds = [calibration.margin.bound(count, LEAST_TOKENS, ALPHA) for count in (1, 10, 100, 1000, 10_000)]
    assert bounds == sorted(bounds, reverse=True)
    assert float(calibration.margin.mean) < bounds[-1] < 0.02
    # A single token can always be off: nothing is concluded from it.
    assert bounds[0] > MARGIN_CLIP
    assert calibration.logprob.most == str(LOGPROB_CLIP)


def test_too_few_tokens_are_no_calibration():
    with pytest.raises(ValueError, match="20000"):
        measured("a", "b", [[(0.0, 0.0)] * (LEAST_TOKENS - 1)], 0, NOON)


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/test.db")
    migrate(database)
    yield database
    database.close()


def profiles():
    """Two deployments of one model, and one of another."""
    first = make_deployment()
    second = first.model_copy(update={"profile": first.profile.model_copy(update={"dtype": "bfloat16"})})
    other = first.model_copy(update={"model": first.model.model_copy(update={"parameter_count": 1})})
    return first, second, other


def between(first, second, calibration):
    return calibration.model_copy(update={"answered": first.digest, "judged": second.digest})


def test_a_calibration_is_logged_once_its_deployments_are(database, calibration):
    first, second, other = profiles()
    good = between(first, second, calibration)
    with pytest.raises(InvalidRequest, match=f"{first.digest} was never served"):
        accept(database, good.content)
    for deployment in (first, second, other):
        database.write_sync(partial(log_document, kind="deployment", content=deployment.document))
    assert accept(database, good.content + b"\n") == 3
    assert accept(database, good.content) == 3
    assert database.read_sync(log_size) == 4
    with pytest.raises(InvalidRequest, match="of one model; these are of two"):
        accept(database, between(first, other, calibration).content)


def broken(content):
    said = json.loads(content)
    yield b"{}"
    yield b"\xff"
    yield json.dumps(said | {"more": 1}).encode()
    yield json.dumps(said | {"tokens": 19_999}).encode()
    yield json.dumps(said | {"type": "urn:transom:calibration:v2"}).encode()
    yield json.dumps(said).encode()  # spelled with spaces


def test_what_is_no_calibration_is_refused(database, calibration):
    for content in broken(calibration.content):
        with pytest.raises(InvalidRequest, match="calibrat"):
            accept(database, content)
    assert isinstance(Calibration.model_validate_json(calibration.content), Calibration)
