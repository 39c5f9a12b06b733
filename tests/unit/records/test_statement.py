"""A statement binds everything private, and reveals none of it."""

import dataclasses
import json
import math
from datetime import timedelta, timezone

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from made_records import RECEIVED, answer, changed, generated, leaves, record, token

from transom.records.reading import read_request
from transom.records.statement import draft
from transom.schema.canonical import canonical_bytes, commit, float32_bytes, sha256
from transom.schema.generation import SamplingParams, SequenceResult, TokenLogprob
from transom.schema.measures import Measured, Measures
from transom.schema.openings import ranked_bytes, verify_openings
from transom.schema.record import PREDICATE_TYPE, rfc3339


def test_every_single_value_in_the_openings_is_bound():
    statement, openings = record()
    paths = list(leaves(openings))
    assert len(paths) > 40
    for path in paths:
        assert len(verify_openings(statement, changed(openings, path))) == 1, path


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("request", "json"), "request.body"),
        (("messages", "json"), "request.messages"),
        (("prompts", 1, "token_ids", 2), "request.prompts[1]"),
        (("sequences", 0, "token_ids", "token_ids", 1), "output[0].token_ids"),
        (("sequences", 1, "text", "text"), "output[1].text"),
        (("sequences", 1, "text", "salt"), "output[1].text"),
        (("sequences", 0, "logprobs", 1), "evidence[0].logprobs"),
        (("sequences", 0, "top", 0, 1, 0), "evidence[0].top"),
        (("sequences", 1, "prompt_logprobs", 1, 0, 1), "evidence[1].prompt_logprobs"),
        (("sequences", 0, "measures", 1, 2), "evidence[0].measures"),
        (("sequences", 0, "prompt_measures", 1, 0), "evidence[0].prompt_measures"),
        (("sequences", 1, "distributions", 1, 0), "evidence[1].distributions"),
        (("sequences", 1, "distributions", 1, 1), "evidence[1].distributions"),
        (("sequences", 1, "prompt_distributions", 0, 1), "evidence[1].prompt_distributions"),
        (("tensors", "json"), "tensors"),
        (("tensors", "salt"), "tensors"),
        (("error", "text"), "error"),
        (("stop", "json"), "request.sampling.stop"),
        (("stop", "salt"), "request.sampling.stop"),
        (("stop_token_ids", "token_ids", 0), "request.sampling.stop_token_ids"),
        (("logit_bias", "json"), "request.sampling.logit_bias"),
        (("writes", "json"), "request.writes"),
        (("writes", "salt"), "request.writes"),
    ],
)
def test_a_tampered_opening_is_named(path, name):
    statement, openings = record()
    assert verify_openings(statement, changed(openings, path)) == [name]


@pytest.mark.parametrize(
    "part",
    [
        "request",
        "messages",
        "prompts",
        "sequences",
        "error",
        "stop",
        "stop_token_ids",
        "logit_bias",
        "tensors",
        "writes",
    ],
)
@pytest.mark.parametrize("junk", [None, [], {}, "x", 7, [None, None], [{}, {}], {"salt": "00", "text": "x"}])
def test_openings_that_cannot_be_read_fail_and_do_not_raise(part, junk):
    statement, openings = record()
    assert verify_openings(statement, openings | {part: junk}) != []
    assert verify_openings(statement, {}) != []


@pytest.mark.parametrize("number", [1e300, "1", None, "nan", [], 2**4000])
def test_logprobs_that_are_no_float32_fail_and_do_not_raise(number):
    statement, openings = record()
    openings["sequences"][0]["logprobs"][0] = number
    openings["sequences"][0]["top"][0][0][1] = number
    assert verify_openings(statement, openings) == ["evidence[0].logprobs", "evidence[0].top"]


@pytest.mark.parametrize(
    "junk", [None, "x", 7, [], [7], ["x"], [[0, "sha256:00"]], [[0, 7]], [[-1, "00" * 32]]]
)
def test_measures_and_digests_that_cannot_be_read_fail_and_do_not_raise(junk):
    statement, openings = record()
    for part in ("measures", "prompt_measures", "distributions", "prompt_distributions"):
        changed_part = json.loads(json.dumps(openings))
        changed_part["sequences"][0][part] = junk
        assert verify_openings(statement, changed_part) == [f"evidence[0].{part}"]


def test_two_digests_do_not_pass_for_one_that_is_longer():
    statement, openings = record()
    (first, one), (second, other_one) = openings["sequences"][0]["distributions"]
    rest = second.to_bytes(4, "little").hex() + other_one.removeprefix("sha256:")
    openings["sequences"][0]["distributions"] = [[first, one + rest]]
    assert verify_openings(statement, openings) == ["evidence[0].distributions"]


def test_a_distribution_is_bound_by_its_digest_and_kept_by_nobody():
    _, openings = record()
    digest = sha256(float32_bytes([-1.0] * 9))
    assert openings["sequences"][0]["distributions"] == [[0, digest], [1, digest]]
    assert openings["sequences"][0]["prompt_distributions"] == [[1, digest]]


def test_logprobs_are_digested_as_float32_in_the_house_spelling():
    statement, openings = record()
    logprobs = openings["sequences"][0]["logprobs"]
    assert statement["predicate"]["evidence"][0]["logprobs"] == sha256(float32_bytes(logprobs))


def test_leaving_out_or_adding_a_sequence_or_prompt_is_noticed():
    statement, openings = record()
    shorter = openings | {"sequences": openings["sequences"][:1]}
    assert "output" in verify_openings(statement, shorter)
    longer = openings | {"prompts": [*openings["prompts"], openings["prompts"][0]]}
    assert verify_openings(statement, longer) == ["request.prompts"]


def test_an_output_that_is_not_the_subject_is_noticed():
    statement, openings = record()
    statement["predicate"]["output"][0]["finish_reason"] = "length"
    assert verify_openings(statement, openings) == ["subject"]


def test_what_was_not_asked_for_is_stated_as_null_and_cannot_be_slipped_in():
    plain = SamplingParams(seed=1, max_tokens=1)
    sequence = SequenceResult(tokens=[token(7, -0.1)], text="x", finish_reason="length")
    statement, openings = record(sampling=plain, sequences=[(0, 0, sequence)], messages=None, error=None)
    assert verify_openings(statement, openings) == []
    evidence = statement["predicate"]["evidence"][0]
    assert (evidence["top"], evidence["prompt_logprobs"]) == (None, None)
    openings["sequences"][0]["top"] = [[[7, -0.1]]]
    assert verify_openings(statement, openings) == ["evidence[0].top"]


def test_a_failed_answer_without_any_output_is_a_record_too():
    statement, openings = record(status="failed", sequences=[], prompts=[])
    assert verify_openings(statement, openings) == []
    assert statement["predicate"]["status"] == "failed"
    assert statement["predicate"]["error"]["code"] == "generation_failed"


def test_nothing_private_is_in_the_statement():
    drafted = draft(answer())
    for secret in (
        b"sky",
        b"grass",
        b"hidden",
        b"blue",
        b"green",
        b"length",
        b"4294967295",
        b"whisper",
        b"7654321",
        b"-1.5",
        b"clean.heads",
        b"c" * 64,
    ):
        assert secret in drafted.openings
        assert secret not in drafted.statement(1)


def test_the_same_answer_twice_shares_no_salt_and_no_commitment_but_its_evidence():
    (one, opened), (two, opened_too) = record(), record()
    salts = [value for both in (opened, opened_too) for value in found_salts(both)]
    assert len(salts) == len(set(salts)) == 28
    assert one["predicate"]["request"]["prompts"] != two["predicate"]["request"]["prompts"]
    assert one["predicate"]["evidence"] == two["predicate"]["evidence"]


def found_salts(value):
    if isinstance(value, dict):
        if "salt" in value:
            assert len(bytes.fromhex(value["salt"])) == 32
            yield value["salt"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from found_salts(item)


def test_the_statement_is_in_toto_and_canonical():
    statement = draft(answer()).statement(3)
    decoded = json.loads(statement)
    assert rfc8785.dumps(decoded) == statement
    assert decoded["_type"] == "https://in-toto.io/Statement/v1"
    assert decoded["predicateType"] == PREDICATE_TYPE == "urn:transom:record:v6"
    assert decoded["subject"][0]["name"] == "rec_" + "0" * 26
    predicate = decoded["predicate"]
    assert predicate["project"] == {"id": "local", "sequence": 3}
    assert predicate["randomness"] == {
        "seed": "9223372036854775807",
        "source": "explicit",
        "joint": None,
    }
    assert predicate["time"]["received"] == "2026-01-31T09:05:00.000001Z"
    assert predicate["request"]["sampling"]["temperature"] == "0.1"


def test_sampling_parameters_that_were_not_given_are_stated_as_null_and_cannot_be_slipped_in():
    plain = SamplingParams(seed=1, max_tokens=1, logprobs=2)
    statement, openings = record(sampling=plain)
    sampling = statement["predicate"]["request"]["sampling"]
    for name, form, value in [
        ("stop", "json", "[]"),
        ("stop_token_ids", "token_ids", []),
        ("logit_bias", "json", "[]"),
    ]:
        assert (sampling[name], openings[name]) == (None, None)
        slipped = openings | {name: {"salt": "00" * 32, form: value}}
        assert verify_openings(statement, slipped) == [f"request.sampling.{name}"]


def test_one_parameters_opening_never_passes_for_anothers():
    params = dataclasses.replace(answer().sampling, stop=("[[3,-1.5]]",), stop_token_ids=(7,))
    statement, openings = record(sampling=params, prompts=[(7,)])
    swapped = openings | {"stop": openings["logit_bias"], "logit_bias": openings["stop"]}
    assert verify_openings(statement, swapped) == [
        "request.sampling.stop",
        "request.sampling.logit_bias",
    ]
    statement["predicate"]["request"]["sampling"]["stop_token_ids"] = statement["predicate"]["request"][
        "prompts"
    ][0]
    assert verify_openings(statement, openings | {"stop_token_ids": openings["prompts"][0]}) == [
        "request.sampling.stop_token_ids"
    ]


SAMPLINGS = [
    SamplingParams(seed=-5, max_tokens=0),
    answer().sampling,
    SamplingParams(
        seed=2**63 - 1,
        max_tokens=9,
        temperature=1e-05,
        top_k=40,
        top_p=0.1 + 0.2,
        min_p=0.25,
        frequency_penalty=-1.5,
        presence_penalty=2.0,
        logit_bias=((3, -1.5), (9, 0.1 + 0.2), (11, 100.0)),
        stop=("a", "half a pair: \ud83d", "\u2028"),
        stop_token_ids=(0, 2**31 - 1),
        ignore_eos=True,
        logprobs=0,
        prompt_logprobs=20,
    ),
]


@pytest.mark.parametrize("params", SAMPLINGS, ids=range(3))
def test_every_sampling_parameter_reads_back_to_the_bit(params):
    assert read_request(*record(sampling=params)).sampling == params


def test_the_number_is_put_in_nowhere_else():
    """Whatever else the statement says, and however large the number."""
    odd = '"sequence":0}'
    drafted = draft(answer(project_id=odd, model=odd, endpoint=odd, record_id=odd))
    for number in (1, 10, 2**53 - 1):
        raw = drafted.statement(number)
        decoded = json.loads(raw)
        assert decoded["predicate"]["project"] == {"id": odd, "sequence": number}
        assert [decoded["predicate"][name] for name in ("model", "record")] == [odd, odd]
        assert rfc8785.dumps(decoded) == raw


def test_every_sampling_parameter_is_in_the_statement():
    statement, _ = record()
    fields = {field.name for field in dataclasses.fields(SamplingParams)}
    assert statement["predicate"]["request"]["sampling"].keys() == fields - {"seed"}


def test_infinite_logprobs_survive():
    measured = Measured(entropy=0.0, top_k_mass=1.0)
    impossible = token(7, -math.inf, ((7, -math.inf),), measured=measured)
    sequence = SequenceResult(tokens=[impossible], finish_reason="length")
    sampling = dataclasses.replace(answer().sampling, measures=Measures(surprisal=True))
    statement, openings = record(sequences=[(0, 0, sequence)], sampling=sampling)
    assert openings["sequences"][0]["logprobs"] == ["-inf"]
    assert openings["sequences"][0]["measures"] == [["inf"]]
    assert verify_openings(statement, openings) == []


def test_bytes_that_unicode_lacks_survive():
    text = "half a pair: \ud83d"
    statement, openings = record(
        request={"prompt": text, "seed": 10**30},
        sequences=[(0, 0, generated(text))],
        sampling=dataclasses.replace(answer().sampling, stop=(text,)),
    )
    assert verify_openings(statement, openings) == []
    assert json.loads(openings["request"]["json"])["prompt"] == text


def test_lists_of_ranked_tokens_that_differ_never_share_their_bytes():
    assert ranked_bytes([[(1, -1.0)], []]) != ranked_bytes([[], [(1, -1.0)]])
    assert ranked_bytes([[(1, -1.0), (2, -1.0)]]) != ranked_bytes([[(1, -1.0)], [(2, -1.0)]])


def test_times_are_utc_to_the_microsecond_and_must_have_a_zone():
    assert rfc3339(RECEIVED.astimezone(timezone(timedelta(hours=5)))) == "2026-01-31T09:05:00.000001Z"
    with pytest.raises(ValueError, match="time zone"):
        record(received=RECEIVED.replace(tzinfo=None))


float32 = st.floats(width=32, allow_nan=False)
token_ids = st.integers(0, 2**32 - 1)
tokens = st.builds(
    TokenLogprob,
    token_ids,
    float32,
    st.integers(1, 2**31),
    st.lists(st.tuples(token_ids, float32), max_size=3),
    st.builds(Measured, entropy=float32, top_k_mass=float32),
    st.none() | st.binary(max_size=9),
)


@settings(max_examples=50)
@given(
    st.lists(tokens, max_size=5),
    st.text(),
    st.lists(st.lists(token_ids, max_size=5), max_size=3),
    st.dictionaries(st.text(), st.integers() | st.floats() | st.text() | st.none(), max_size=4),
)
def test_any_answer_verifies_and_reads_back_bit_for_bit(drawn, text, prompts, request):
    sequence = SequenceResult(tokens=drawn, text=text, finish_reason="stop")
    statement, openings = record(sequences=[(0, 0, sequence)], prompts=prompts, request=request)
    assert verify_openings(statement, openings) == []
    opened = openings["sequences"][0]
    assert [float(value) for value in opened["logprobs"]] == [token.logprob for token in drawn]
    told = [[float(value) for value in values] for values in opened["measures"]]
    assert told == [token.values(answer().sampling.measures) for token in drawn]
    assert opened["token_ids"]["token_ids"] == sequence.token_ids
    assert [prompt["token_ids"] for prompt in openings["prompts"]] == prompts


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_canonical_bytes_read_back_to_the_same_value_and_the_same_bytes(value):
    spelled = canonical_bytes(value)
    assert json.loads(spelled) == value
    assert canonical_bytes(json.loads(spelled)) == spelled


@given(st.text(), st.binary(), st.text(), st.binary())
def test_commitments_agree_only_for_the_same_kind_and_data(kind, data, other_kind, other_data):
    salt = bytes(range(32))
    same = (kind, data) == (other_kind, other_data)
    assert (commit(kind, salt, data) == commit(other_kind, salt, other_data)) == same
    assert commit(kind, bytes(32), data) != commit(kind, salt, data) != sha256(data)
