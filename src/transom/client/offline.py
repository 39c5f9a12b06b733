"""Checks of records that need files and no server: signatures, places in the log, openings."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product, zip_longest
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from transom.client.dating import misdated
from transom.client.spelling import read_record
from transom.client.verify import verify_record
from transom.errors import InvalidRequest, NotVerified
from transom.schema.envelopes import (
    PublicKey,
    PublicKeys,
    broken_succession,
    pre_authentication_encoding,
)
from transom.schema.messages import Message
from transom.schema.openings import verify_openings
from transom.schema.randomness import PLANS, has_own_seed
from transom.schema.record import RecordView
from transom.tlog.checkpoints import Checkpoint, open_checkpoint
from transom.tlog.entries import Entry
from transom.tlog.notes import Note, VerifierKey, decode
from transom.tlog.policies import NONE, Policy
from transom.tlog.proofs import HEADER as PROOF_HEADER
from transom.tlog.proofs import Proof

MOST_BYTES = 1 << 28
"""Larger files are not read."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom the verifier believes; never taken from what is verified."""

    keys: PublicKeys
    policy: Policy | None = None
    """Which witnesses must have cosigned; None for none."""

    def open(self, checkpoint: str) -> Checkpoint:
        """The checkpoint in a note that is believed.

        Raises:
            NotVerified: it is not.
        """
        found, _ = open_checkpoint(checkpoint, VerifierKey.parse(self.keys.log))
        if self.policy is not None:
            self.policy.verify(checkpoint)
        return found


@dataclass(slots=True)
class Finding:
    """What was found of one record."""

    record: str
    shown: list[str] = field(default_factory=list)
    """What holds, in words."""
    faults: list[str] = field(default_factory=list)
    """What does not, or could not be checked; empty where all is well."""


@dataclass(slots=True)
class Evidence:
    """What files hold, told apart by their contents."""

    records: list[RecordView] = field(default_factory=list)
    proofs: list[Proof] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)
    """Notes that came alone: what the log was at other times."""


def departures(known: PublicKeys, found: PublicKeys) -> Iterator[str]:
    """Why keys that a server names now do not follow from those that are trusted; nothing where they do.

    They follow if the log has the same key, the trusted ones are all there and each later one is endorsed
    by the one before it.
    """
    if found.log != known.log:
        yield f"the log has another key: {found.log}"
    yield from broken_succession(found.records)
    for before, now in zip_longest(known.records, found.records):
        if before is None:
            break
        if now is None or (before.key, before.valid_from) != (now.key, now.valid_from):
            yield f"the key {before.keyid} is not there any more, or signs since another time"
        elif before.valid_until not in (None, now.valid_until):
            yield f"the key {before.keyid} had signed until {before.valid_until}, and now until another time"


def read_evidence(paths: Iterable[Path]) -> Evidence:
    """Read records (JSON, as `transom record show --json` prints them), receipts and checkpoints.

    Raises:
        InvalidRequest: a file is none of them; names it.
    """
    found = Evidence()
    for path in paths:
        content = _content(path)
        try:
            if content.startswith("{"):
                found.records.append(read_record(content))
            elif content.startswith(PROOF_HEADER):
                found.proofs.append(Proof.parse(content))
            else:
                Checkpoint.parse(Note.parse(content).text)
                found.checkpoints.append(content)
        except NotVerified as error:
            told = f"{path} is neither a record nor a receipt, nor a checkpoint: {error}"
            raise InvalidRequest(told) from None
    return found


def _content(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InvalidRequest(f"{path} is larger than {MOST_BYTES} bytes.")
        # Not as text, which would take one end of a line for another.
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from None


def verify_evidence(evidence: Evidence, trust: Trust) -> Iterator[Finding]:
    """Check each record against its signature, its receipt and its openings."""
    heads = [] if trust.policy is None else list(_heads(evidence, trust))
    for view in evidence.records:
        finding = Finding(view.id)
        faults = verify_record(view)
        finding.faults += faults
        if not faults:
            finding.shown.append("agrees with itself")
            _check_signature(view, trust.keys.records, finding)
            _check_log(view, evidence.proofs, heads, trust, finding)
            _check_openings(view, finding)
        yield finding


def _check_signature(view: RecordView, keys: Sequence[PublicKey], finding: Finding) -> None:
    """By a key that was in use when the answer was complete."""
    payload = base64.b64decode(view.envelope.payload)
    known = {key.keyid: key for key in keys}
    signed = pre_authentication_encoding(view.envelope.payloadType, payload)
    for signature in view.envelope.signatures:
        key = known.get(signature.keyid)
        if key is None:
            continue
        try:
            public = Ed25519PublicKey.from_public_bytes(decode(key.key, "a key"))
            public.verify(decode(signature.sig, "a signature"), signed)
        except (InvalidSignature, NotVerified, ValueError):
            finding.faults.append(f"the signature by {key.keyid} is not one")
            return
        if view.created < key.valid_from or (key.valid_until is not None and view.created >= key.valid_until):
            finding.faults.append(f"the key {key.keyid} was not in use when the answer was given")
            return
        finding.shown.append(f"signed by {key.keyid}")
        return
    finding.faults.append("no signature by a key that is trusted")


def _check_log(
    view: RecordView,
    proofs: Sequence[Proof],
    heads: Sequence[tuple[Checkpoint, Note]],
    trust: Trust,
    finding: Finding,
) -> None:
    entry = Entry("record", view.digest).content
    reasons = []
    for proof in proofs:
        try:
            proof.verify(entry, VerifierKey.parse(trust.keys.log))
            head = trust.open(proof.checkpoint)
        except NotVerified as error:
            reasons.append(error.message)
            continue
        asked = trust.policy is not None and trust.policy.quorum != NONE
        cosigned = ", with a quorum of witnesses" if asked else ""
        finding.shown.append(f"entry {proof.index} of {head.size} of {head.origin}{cosigned}")
        if trust.policy is not None:
            finding.faults += misdated(view.created, proof.index, heads, trust.policy)
        return
    told = f" ({reasons[0]})" if len(reasons) == 1 else ""
    finding.faults.append(f"no receipt of these files proves that it is in the log{told}")


def _heads(evidence: Evidence, trust: Trust) -> Iterator[tuple[Checkpoint, Note]]:
    """What the log was at several times, as far as it is believed."""
    for content in (*(proof.checkpoint for proof in evidence.proofs), *evidence.checkpoints):
        with suppress(NotVerified):
            yield trust.open(content), Note.parse(content)


def _check_openings(view: RecordView, finding: Finding) -> None:
    if view.openings is None:
        finding.faults.append("there are no openings, and so nothing shows what was asked and answered")
        return
    try:
        wrong = verify_openings(view.statement, view.openings)
        wrong = wrong or list(_otherwise(view))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError):
        wrong = ["the statement has another form"]
    if wrong:
        finding.faults.append(f"openings that do not open: {', '.join(wrong)}")
    else:
        finding.shown.append("question and answer are those that it commits to")


def _otherwise(view: RecordView) -> Iterator[str]:
    """Where the record says that something else was asked than its body asks for, as far as it shows."""
    predicate, openings = view.statement["predicate"], view.openings or {}
    body = json.loads(openings["request"]["json"])
    if not has_own_seed(view.statement, body):
        yield "the seed, which is not the one that was asked for"
    request = predicate["request"]
    places = product(range(len(request["prompts"])), range(request["n"]))
    found = [(each["prompt_index"], each["choice"]) for each in predicate["output"]]
    if predicate["status"] == "complete" and request["endpoint"] != PLANS and found != list(places):
        yield "the output, which is not one sequence for each prompt and choice"
    if openings["messages"] is not None:
        asked = [Message.model_validate(message).plain() for message in body["messages"]]
        if asked != json.loads(openings["messages"]["json"]):
            yield "the messages, which are not those of the body"
