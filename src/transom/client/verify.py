"""Checks of a record that need nothing but the record."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from transom.schema.canonical import canonical_bytes, digest, sha256
from transom.schema.record import PAYLOAD_TYPE, PREDICATE_TYPES, STATEMENT_TYPE, RecordView


def verify_record(view: RecordView) -> list[str]:
    """What is wrong with a record as it was handed out; empty when it agrees with itself.

    The digest binds the payload, the payload is the statement, and the summary says what the statement
    says. That the digest is in the log, and that the openings open the commitments, are other questions.
    """
    return [fault for fault, holds in _claims(view) if not _true(holds)]


def _claims(view: RecordView) -> Iterator[tuple[str, Callable[[], bool]]]:
    statement = view.statement
    yield "digest is not that of the payload", lambda: sha256(_payload(view)) == view.digest
    yield "payload is not the statement", lambda: _payload(view) == canonical_bytes(statement)
    yield "envelope has another payload type", lambda: view.envelope.payloadType == PAYLOAD_TYPE
    yield "statement has another type", lambda: _is_known(statement)
    yield "subject is not the record's output", lambda: _subject(statement) == _expected_subject(view)
    for name in ("id", "created", "project", "model", "deployment", "endpoint", "status", "sequence"):
        yield f"{name} is not the statement's", partial(_agrees, view, name)


def _true(holds: Callable[[], bool]) -> bool:
    try:
        return holds()
    except (KeyError, IndexError, TypeError, ValueError):
        return False  # what cannot be read shows nothing


def _agrees(view: RecordView, name: str) -> bool:
    return bool(_stated(view.statement)[name] == getattr(view, name))


def _payload(view: RecordView) -> bytes:
    payload = base64.b64decode(view.envelope.payload, validate=True)
    if base64.b64encode(payload).decode() != view.envelope.payload:
        raise ValueError("the payload is base64 in another spelling")
    return payload


def _is_known(statement: dict[str, Any]) -> bool:
    return statement["_type"] == STATEMENT_TYPE and statement["predicateType"] in PREDICATE_TYPES


def _subject(statement: dict[str, Any]) -> tuple[str, str]:
    (subject,) = statement["subject"]
    return subject["name"], "sha256:" + subject["digest"]["sha256"]


def _expected_subject(view: RecordView) -> tuple[str, str]:
    return view.id, digest(view.statement["predicate"]["output"])


def _stated(statement: dict[str, Any]) -> dict[str, object]:
    """The summary as the statement has it."""
    predicate = statement["predicate"]
    return {
        "id": predicate["record"],
        "created": predicate["time"]["answered"],
        "project": predicate["project"]["id"],
        "model": predicate["model"],
        "deployment": predicate["deployment"],
        "endpoint": predicate["request"]["endpoint"],
        "status": predicate["status"],
        "sequence": predicate["project"]["sequence"],
    }
