"""The crate's description of itself: a Process Run Crate 0.5 (https://w3id.org/ro/wfrun/process/0.5).

(On RO-Crate 1.1, https://w3id.org/ro/crate/1.1.) It follows from the files, the records and a licence, byte
by byte. So a verifier makes it again, and a description that says anything else is found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from transom.client.bundle.layout import KINDS, METADATA, kind_of, name_of
from transom.schema.record import RecordView

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
VERSION = "1"
"""Of the layout and the description; another is verified by another version of Transom."""

NO_LICENCE = "#no-licence"

_CONTEXT = ("https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context")
_DESCRIPTION = (
    "Signed records of answers of language models, each with the proof that it is in a public log; verify "
    "them with: transom verify BUNDLE --keys KEYS"
)
_STATUS = {"complete": "http://schema.org/CompletedActionStatus"}
_FAILED = "http://schema.org/FailedActionStatus"

Node = dict[str, Any]


@dataclass(frozen=True, slots=True)
class File:
    """What is said of a file."""

    size: int
    sha256: str
    """Hexadecimal."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is said of a record."""

    record: str
    received: str
    answered: str
    model: str
    deployment: str
    endpoint: str
    status: str

    @classmethod
    def of(cls, view: RecordView) -> Self:
        """Out of a record.

        Raises:
            KeyError, TypeError: its statement has another form.
        """
        received = str(view.statement["predicate"]["time"]["received"])
        return cls(view.id, received, view.created, view.model, view.deployment, view.endpoint, view.status)


def describe(files: Mapping[str, File], runs: Sequence[Run], licence: str | None) -> bytes:
    """The description of files and records.

    Args:
        files: all but the description itself, by name.
        runs: the records, in any order.
        licence: under which the owner shares them, as a URL; None where none was given.
    """
    names = sorted(files)
    runs = sorted(runs, key=lambda run: run.record)
    graph = [
        _descriptor(),
        _root(names, runs, licence),
        {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        _licence(licence),
        *_applications(files, runs),
        *(_action(files, run) for run in runs),
        *(_file(name, files[name]) for name in names),
    ]
    return json.dumps({"@context": _CONTEXT, "@graph": graph}, indent=2).encode() + b"\n"


def licence_of(content: bytes) -> str | None:
    """The licence that a description names.

    Raises:
        ValueError: it is none of ours.
    """
    try:
        (root,) = [node for node in json.loads(content)["@graph"] if node["@id"] == "./"]
        if root["version"] != VERSION:
            raise ValueError(f"it is of version {root['version']!r:.20}, and this is a verifier of {VERSION}")
        named = root["license"]["@id"]
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is not as we write it: {error!r:.200}") from None
    if not isinstance(named, str):
        raise ValueError("it names no licence")  # noqa: TRY004  # one error for whatever is wrong
    return None if named == NO_LICENCE else named


def _descriptor() -> Node:
    about = {"@id": METADATA, "@type": "CreativeWork", "about": {"@id": "./"}}
    return about | {"conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"}}


def _root(names: Sequence[str], runs: Sequence[Run], licence: str | None) -> Node:
    return {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Signed records of answers: {len(runs)}",
        "description": _DESCRIPTION,
        "version": VERSION,
        # Of the newest record: a bundle made twice of the same files is the same.
        "datePublished": max((run.answered for run in runs), default="1970-01-01T00:00:00Z"),
        "license": {"@id": licence or NO_LICENCE},
        "conformsTo": {"@id": PROFILE},
        "hasPart": [{"@id": name} for name in names],
        "mentions": [{"@id": f"#{run.record}"} for run in runs],
    }


def _licence(licence: str | None) -> Node:
    if licence is not None:
        return {"@id": licence, "@type": "CreativeWork", "name": licence, "description": "As its owner says"}
    told = "Nobody said under which licence this is shared: ask its owner"
    return {"@id": NO_LICENCE, "@type": "CreativeWork", "name": "No licence", "description": told}


def _applications(files: Mapping[str, File], runs: Sequence[Run]) -> Iterator[Node]:
    """The deployments that answered."""
    models = {run.deployment: run.model for run in runs}
    for digest in sorted(models):
        node: Node = {
            "@id": _urn(digest),
            "@type": "SoftwareApplication",
            "name": models[digest],
            "softwareVersion": digest,
            "description": "A model, and all that shapes its answers, served by Transom",
        }
        manifest = name_of("deployment", digest)
        yield node | ({"subjectOf": {"@id": manifest}} if manifest in files else {})


def _action(files: Mapping[str, File], run: Run) -> Node:
    def there(*kinds: str) -> list[dict[str, str]]:
        names = (name_of(kind, run.record) for kind in kinds)
        return [{"@id": name} for name in names if name in files]

    node: Node = {
        "@id": f"#{run.record}",
        "@type": "CreateAction",
        "name": f"{run.endpoint} of {run.model}",
        "description": "The question and the answer are the openings of the record",
        "instrument": {"@id": _urn(run.deployment)},
        "startTime": run.received,
        "endTime": run.answered,
        "actionStatus": _STATUS.get(run.status, _FAILED),
        "result": there("record", "receipt", "result"),
    }
    plan = there("plan")
    return node | ({"object": plan[0]} if plan else {})


def _urn(deployment: str) -> str:
    return f"urn:transom:deployment:{deployment}"


def _file(name: str, file: File) -> Node:
    kind, _ = kind_of(name) or ("", "")
    return {
        "@id": name,
        "@type": "File",
        "name": name.rpartition("/")[2],
        "description": KINDS[kind].says,
        "encodingFormat": KINDS[kind].media_type,
        "contentSize": str(file.size),
        "sha256": file.sha256,
    }
