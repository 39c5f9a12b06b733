"""What lies where in a bundle, and how large it may be. A file of another name is not one of a bundle's."""

from __future__ import annotations

import re
from dataclasses import dataclass

METADATA = "ro-crate-metadata.json"
README = "README.md"
KEYS = "keys.json"
POLICY = "policy.txt"

MOST_FILES = 100_000
MOST_BYTES = 1 << 28
"""Of a file that is read into memory."""
MOST_RESULT_BYTES = 1 << 40
"""Of a result, which is not."""

_RECORD = r"rec_[0-9a-z]{26}"
SCORER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file."""

    pattern: re.Pattern[str]
    """Of names; its group, if it has one, is what the file belongs to."""
    form: str
    """The same for people."""
    media_type: str
    says: str
    most: int
    """Bytes."""


def _kind(form: str, media_type: str, says: str, most: int = MOST_BYTES) -> Kind:
    """A kind by the form of its names, with `{}` where there is what the file belongs to."""
    parts = map(re.escape, form.split("{}"))
    folder = form.split("/", maxsplit=1)[0]
    group = {"deployments": "[0-9a-f]{64}", "scorer": SCORER_NAME.pattern}.get(folder, _RECORD)
    return Kind(re.compile(f"({group})".join(parts)), form, media_type, says, most)


_JSON, _TEXT = "application/json", "text/plain"

KINDS = {
    "metadata": _kind(METADATA, "application/ld+json", "This description"),
    "readme": _kind(README, "text/markdown", "What this is, and how to verify it"),
    "keys": _kind(KEYS, _JSON, "Keys that the server says are its own"),
    "policy": _kind(POLICY, _TEXT, "Which witnesses must have cosigned (c2sp.org/tlog-policy)"),
    "record": _kind("records/{}.json", _JSON, "A signed record, with its openings"),
    "receipt": _kind(
        "receipts/{}.tlog-proof", _TEXT, "Proof that the record is in the log (c2sp.org/tlog-proof)"
    ),
    "deployment": _kind("deployments/{}.json", _JSON, "All that shapes the answers of a deployment"),
    "plan": _kind("plans/{}.json", _JSON, "The plan that was carried out inside the model"),
    "result": _kind(
        "results/{}.safetensors",
        "application/octet-stream",
        "What was read inside the model",
        MOST_RESULT_BYTES,
    ),
    "scorer": _kind("scorer/{}", _TEXT, "What scores the answers, or its versions, pinned"),
}
"""By what each is called here."""


def kind_of(name: str) -> tuple[str, str] | None:
    """Which kind of file has this name, and what it belongs to; None for a name that none has."""
    for kind, said in KINDS.items():
        found = said.pattern.fullmatch(name)
        if found is not None:
            return kind, found[1] if said.pattern.groups else ""
    return None


def name_of(kind: str, belongs_to: str = "") -> str:
    """The name of a file; the other direction of `kind_of`."""
    return KINDS[kind].form.format(belongs_to.removeprefix("sha256:"))
