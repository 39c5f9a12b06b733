"""Records of earlier versions are still read and still checked."""

import json
from pathlib import Path

import pytest
from made_records import changed, leaves

from transom.records.reading import read_request
from transom.schema.canonical import canonical_bytes, sha256
from transom.schema.measures import Measures
from transom.schema.openings import verify_openings
from transom.schema.randomness import is_own_seed

DIGESTS = {
    1: "sha256:f652a809ce5f188edc91e8b3b328360b6ccc3f168319574c640166c7a0cac06e",
    2: "sha256:c1eb38debf1eb304a0dd9bdba4b246cd672eb555bda5f6c9a7c6c78708cc44c4",
    3: "sha256:dbae33bdb9d175ad7b56eeed1826185153103f5b0b5d9a8405c4bcbce6865335",
    4: "sha256:ae4d4ce5614571c8187db2d014247028a988e203435711e2cc42cb13a785de51",
    5: "sha256:0d59491e95aaed9514a3fdbbc5a1ab6c873437f7469bf84c5cb181028b894df6",
}
"""Of the statement of each version in `fixtures`, as it was made."""


def earlier(version):
    """(statement, openings), as the code of that time made them."""
    path = Path(__file__).parent / "fixtures" / f"record-v{version}.json"
    made = json.loads(path.read_text(encoding="utf-8"))
    return made["statement"], made["openings"]


@pytest.mark.parametrize("version", DIGESTS)
def test_it_verifies(version):
    statement, openings = earlier(version)
    assert statement["predicateType"] == f"urn:transom:record:v{version}"
    assert verify_openings(statement, openings) == []
    assert sha256(canonical_bytes(statement)) == DIGESTS[version]


@pytest.mark.parametrize("version", DIGESTS)
def test_every_single_value_in_its_openings_is_bound(version):
    statement, openings = earlier(version)
    for path in leaves(openings):
        assert len(verify_openings(statement, changed(openings, path))) == 1, path


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_nothing_was_read_or_written_inside(version):
    request = read_request(*earlier(version))
    assert request.tensors is request.writes is None


def test_since_version_5_there_are_writes():
    (write,) = read_request(*earlier(5)).writes
    assert (write["at"], write["op"]) == ("resid_post.10", "add")


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_writes_that_nothing_binds_are_not_read(version):
    statement, openings = earlier(version)
    slipped = openings | {"writes": {"salt": "00" * 32, "json": '[{"at":"z.0","op":"zero"}]'}}
    assert read_request(statement, slipped).writes is None


@pytest.mark.parametrize("version", [1, 2, 3])
def test_tensors_that_nothing_binds_are_not_read(version):
    statement, openings = earlier(version)
    slipped = openings | {"tensors": {"salt": "00" * 32, "json": "[]"}}
    assert read_request(statement, slipped).tensors is None


@pytest.mark.parametrize("version", [3, 4, 5])
def test_since_version_3_there_are_measures_and_distributions(version):
    request = read_request(*earlier(version))
    assert request.sampling.measures == Measures(entropy=True, rank=True, top_k_mass=10)
    assert request.sampling.distributions == (0,)
    evidence = request.sequences[0].evidence
    assert (len(evidence["measures"]), len(evidence["distributions"])) == (3, 1)
    assert not request.sequences[0].scored_prompt


@pytest.mark.parametrize("version", [1, 2])
def test_those_before_asked_for_no_measure(version):
    request = read_request(*earlier(version))
    assert request.sampling.measures is request.sampling.prompt_measures is None
    assert request.sampling.distributions == request.sampling.prompt_distributions == ()
    assert not request.sequences[0].scored_prompt


def test_the_parameters_of_version_1_are_read_from_the_statement():
    statement, openings = earlier(1)
    said = statement["predicate"]["request"]["sampling"]
    said |= {"stop": ["x"], "stop_token_ids": [5], "logit_bias": [[3, "-1.5"]]}
    sampling = read_request(statement, openings).sampling
    assert (sampling.stop, sampling.stop_token_ids) == (("x",), (5,))
    assert sampling.logit_bias == ((3, -1.5),)
    assert (sampling.seed, sampling.max_tokens, sampling.logprobs) == (7, 8, 2)


@pytest.mark.parametrize("version", DIGESTS)
def test_the_seed_was_picked_by_one_side(version):
    statement, openings = earlier(version)
    assert is_own_seed(statement["predicate"]["randomness"], json.loads(openings["request"]["json"]))
