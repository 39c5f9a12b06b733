"""The published schema of statements, against statements that are made."""

from __future__ import annotations

import json
from copy import deepcopy

import jsonschema
import pytest

from tests.documents import ROOT
from tests.unit.records.made_records import leaves, record
from transom.schema.record import PREDICATE_TYPE
from transom.schema.statements import FILE_NAME, Statement, json_schema

PUBLISHED = json.loads((ROOT / "docs" / "reference" / FILE_NAME).read_text("utf-8"))
EXAMPLES = {
    "with all there is": {},
    "with nothing": {"messages": None, "error": None, "tensors": None, "writes": None, "sequences": []},
}


def is_valid(statement) -> bool:
    """By the schema; and the models that it is made of must agree."""
    by_schema = jsonschema.Draft202012Validator(PUBLISHED).is_valid(statement)
    try:
        Statement.model_validate_json(json.dumps(statement))
    except ValueError:
        assert not by_schema
    else:
        assert by_schema
    return by_schema


def test_the_schema_is_a_schema_of_this_version():
    jsonschema.Draft202012Validator.check_schema(PUBLISHED)
    assert json_schema() == PUBLISHED
    assert PUBLISHED["properties"]["predicateType"]["const"] == PREDICATE_TYPE


@pytest.mark.parametrize("changes", EXAMPLES.values(), ids=EXAMPLES)
def test_a_statement_is_as_the_schema_says(changes):
    statement, _ = record(**changes)
    assert is_valid(statement)


def test_nothing_may_be_missing_and_nothing_more_may_be_there():
    statement, _ = record()
    for path in leaves(statement):
        # Items of lists may be fewer.
        if isinstance(path[-1], int):
            continue
        for spoil in (dict.pop, lambda inner, key: inner.update({f"{key}_more": 1})):
            spoiled = deepcopy(statement)
            inner = spoiled
            for key in path[:-1]:
                inner = inner[key]
            spoil(inner, path[-1])
            assert not is_valid(spoiled), path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("predicateType",), "urn:transom:record:v4"),
        (("_type",), "https://in-toto.io/Statement/v2"),
        (("subject",), []),
        (("subject", 0, "name"), "rec_1"),
        (("subject", 0, "digest", "sha256"), "AB" * 32),
        (("predicate", "deployment"), "ab" * 32),
        (("predicate", "time", "answered"), "2026-01-31T09:05:00Z"),
        (("predicate", "status"), "fine"),
        (("predicate", "project", "sequence"), 0),
        (("predicate", "request", "sampling", "temperature"), 1.0),
        (("predicate", "request", "sampling", "top_p"), "1,0"),
        (("predicate", "request", "endpoint"), "v1"),
        (("predicate", "randomness", "seed"), "007"),
        (("predicate", "randomness", "source"), "operator"),
        (("predicate", "output", 0, "tokens"), -1),
        (("predicate", "output", 0, "tokens"), "3"),
        (("predicate", "evidence", 0, "logprobs"), None),
        (("predicate", "request", "body"), "What is it?"),
    ],
    ids=str,
)
def test_what_is_no_statement_is_found(path, value):
    statement, _ = record()
    inner = statement
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    assert not is_valid(statement)


def test_the_example_of_the_page_is_as_the_schema_says():
    page = (ROOT / "docs" / "reference" / "record-format.md").read_text("utf-8")
    statement = json.loads(page.split("```json\n")[1].split("```")[0])
    assert is_valid(statement)
