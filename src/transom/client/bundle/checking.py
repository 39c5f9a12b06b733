"""Verifying a bundle without a server: each record by its proofs, and each file by what is on record.

Keys are the verifier's own. Those in the bundle were put there by whoever made it: they are compared with
the verifier's, and nothing rests on them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress

from transom.client.bundle.container import Bundle
from transom.client.bundle.layout import KEYS, METADATA, POLICY, README, kind_of, name_of
from transom.client.bundle.metadata import File, Run, describe, licence_of
from transom.client.bundle.results import check_result
from transom.client.offline import Evidence, Finding, Trust, verify_evidence
from transom.client.spelling import read_record
from transom.errors import InvalidRequest, NotVerified
from transom.schema.canonical import canonical_bytes
from transom.schema.deployment import Deployment
from transom.schema.envelopes import PublicKeys
from transom.schema.record import RecordView
from transom.tlog.policies import Policy
from transom.tlog.proofs import Proof

TRACES = "/v1/traces"
"""Where plans are sent to."""


def keys_in(bundle: Bundle) -> PublicKeys:
    """The keys that a bundle says are the server's.

    Raises:
        InvalidRequest: there are none.
    """
    if KEYS not in bundle.sizes:
        raise InvalidRequest(f"There is no {KEYS} in {bundle.place}.")
    try:
        return PublicKeys.model_validate_json(bundle.read(KEYS))
    except ValueError as error:
        raise InvalidRequest(f"{KEYS} in {bundle.place} holds no keys: {error}") from None


def policy_in(bundle: Bundle) -> Policy | None:
    """The policy that a bundle brings along; None where it brings none.

    Raises:
        NotVerified: it is none.
    """
    if POLICY not in bundle.sizes:
        return None
    return Policy.parse(bundle.read(POLICY).decode("utf-8", "replace"))


def verify_bundle(bundle: Bundle, trust: Trust) -> Iterator[Finding]:
    """Check all that is in a bundle: a finding for each record, and one for the bundle itself.

    Raises:
        InvalidRequest: a file cannot be read.
    """
    whole = Finding("bundle")
    runs: list[Run] = []
    for record_id, name in bundle.of_kind("record"):
        yield _check_record(bundle, record_id, name, trust, runs)
    if not list(bundle.of_kind("record")):
        whole.faults.append("there is no record in it")
    _check_files(bundle, runs, whole)
    _check_belongings(bundle, runs, whole)
    _check_keys(bundle, trust, whole)
    yield whole


def _check_record(bundle: Bundle, record_id: str, name: str, trust: Trust, runs: list[Run]) -> Finding:
    try:
        view = read_record(bundle.read(name).decode())
        (finding,) = verify_evidence(Evidence([view], _proofs(bundle, record_id)), trust)
    except (NotVerified, UnicodeDecodeError) as error:
        return Finding(record_id, faults=[f"{name}: {error}"])
    if view.id != record_id:
        finding.faults.append(f"{name} holds {view.id[:40]!r}")
    with suppress(KeyError, TypeError):  # a statement of another form has a fault already
        runs.append(Run.of(view))
    for check in (_check_deployment, _check_plan, _check_result):
        try:
            check(bundle, view, finding)
        except NotVerified as error:
            finding.faults.append(error.message)
    return finding


def _proofs(bundle: Bundle, record_id: str) -> list[Proof]:
    name = name_of("receipt", record_id)
    return [Proof.parse(bundle.read(name).decode())] if name in bundle.sizes else []


def _check_deployment(bundle: Bundle, view: RecordView, finding: Finding) -> None:
    name = name_of("deployment", view.deployment)
    if name not in bundle.sizes:
        raise NotVerified("the manifest of its deployment is not here, so nothing shows what answered")
    content = bundle.read(name)
    try:
        manifest = Deployment.model_validate_json(content)
        as_we_spell = canonical_bytes(manifest.model_dump(mode="json"))
    except ValueError as error:
        raise NotVerified(f"{name} is no manifest of a deployment: {str(error)[:200]}") from None
    if as_we_spell != content or manifest.digest != view.deployment:
        raise NotVerified(f"{name} is not the manifest of the deployment that answered")
    finding.shown.append(f"answered by {view.deployment}, whose manifest is here")


def _check_plan(bundle: Bundle, view: RecordView, finding: Finding) -> None:
    name = name_of("plan", view.id)
    if view.endpoint != TRACES or view.openings is None:
        if name in bundle.sizes:
            raise NotVerified(f"{name} is of a record that shows no plan")
        return
    if name not in bundle.sizes:
        raise NotVerified("its plan is not here")
    try:
        asked = view.openings["request"]["json"]
    except (KeyError, TypeError):
        asked = None
    if not isinstance(asked, str) or asked.encode() != bundle.read(name):
        raise NotVerified(f"{name} is not the plan that it commits to")
    finding.shown.append("carried out the plan that is here")


def _check_result(bundle: Bundle, view: RecordView, finding: Finding) -> None:
    name = name_of("result", view.id)
    if name not in bundle.sizes:
        return
    with bundle.opened(name) as file:
        count = check_result(file, bundle.sizes[name], view)
    finding.shown.append(f"read the {count} tensors that are here")


def _check_files(bundle: Bundle, runs: list[Run], whole: Finding) -> None:
    """That the description says of each file, and of each record, what is so."""
    missing = [name for name in (METADATA, README, KEYS) if name not in bundle.sizes]
    whole.faults += [f"{name} is missing" for name in missing]
    if METADATA in missing:
        return
    files = {name: File(size, bundle.digest(name)) for name, size in bundle.sizes.items() if name != METADATA}
    said = bundle.read(METADATA)
    try:
        licence = licence_of(said)
    except ValueError as error:
        whole.faults.append(f"{METADATA} cannot be read: {error}")
        return
    if said == describe(files, runs, licence):
        whole.shown.append(f"{len(files)} files, each as {METADATA} describes it")
    else:
        whole.faults += _differences(said, files) or [f"{METADATA} does not describe these files and records"]


def _differences(said: bytes, files: Mapping[str, File]) -> list[str]:
    """Which files are not those that the description means."""
    nodes = {str(node.get("@id")): node for node in json.loads(said)["@graph"] if isinstance(node, dict)}
    wrong = []
    for name, file in sorted(files.items()):
        if name not in nodes:
            wrong.append(f"{name} is not in {METADATA}")
        elif nodes[name].get("sha256") != file.sha256:
            wrong.append(f"{name} has another SHA-256 than {METADATA} says")
    gone = [name for name in nodes if kind_of(name) and name not in files and name != METADATA]
    return wrong + [f"{name} is in {METADATA}, and not here" for name in gone]


def _check_belongings(bundle: Bundle, runs: list[Run], whole: Finding) -> None:
    """That no file is there that belongs to no record."""
    own = {run.record for run in runs} | {run.deployment.removeprefix("sha256:") for run in runs}
    for kind in ("receipt", "deployment", "plan", "result"):
        strangers = [name for belongs_to, name in bundle.of_kind(kind) if belongs_to not in own]
        whole.faults += [f"{name} belongs to no record that is here" for name in strangers]


def _check_keys(bundle: Bundle, trust: Trust, whole: Finding) -> None:
    """What the bundle says of keys, against what the verifier knows."""
    if KEYS not in bundle.sizes:
        return
    said, known = keys_in(bundle), {key.keyid: key.key for key in trust.keys.records}
    if said.log != trust.keys.log or any(known.get(key.keyid, key.key) != key.key for key in said.records):
        whole.faults.append(f"{KEYS} names other keys than those that are trusted")
    elif more := [key.keyid for key in said.records if key.keyid not in known]:
        whole.shown.append(f"{KEYS} also names {', '.join(more)}, which you do not know")
    else:
        whole.shown.append(f"{KEYS} names the keys that are trusted")
    try:
        if policy_in(bundle) is not None and trust.policy is None:
            whole.shown.append(f"{POLICY} was not applied: whom to trust is for you to say, with --policy")
    except NotVerified as error:
        whole.faults.append(f"{POLICY}: {error.message}")
