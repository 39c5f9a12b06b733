"""`transom receipt`, `transom verify`, `transom log`: proof that needs no server."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from transom.cli import output
from transom.cli.output import ExitCode, exit_on_error
from transom.cli.researcher import ApiKey, BaseUrl, RecordId
from transom.cli.weights import replay_with
from transom.client import Client, operations
from transom.client.bundle.checking import keys_in, verify_bundle
from transom.client.bundle.container import is_bundle, open_bundle
from transom.client.offline import Finding, Trust, departures, read_evidence, verify_evidence
from transom.client.receipts import wait_for_receipt
from transom.client.spelling import read_record
from transom.errors import InvalidRequest, NotVerified
from transom.schema.envelopes import PublicKeys
from transom.schema.record import RecordView
from transom.tlog.entries import documents_in
from transom.tlog.files import CHECKPOINT, DOCUMENTS, LogFiles, check_files
from transom.tlog.notes import VerifierKey
from transom.tlog.policies import Policy

log = typer.Typer(help="The public log.", no_args_is_help=True)

_KEYS = typer.Option(
    "--keys", exists=True, dir_okay=False, help="Keys that you trust, of `transom log keys`."
)
Keys = Annotated[Path, _KEYS]
PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy", exists=True, dir_okay=False, help="Who must have cosigned (c2sp.org/tlog-policy)."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command()(receipt)
    app.command()(verify)
    app.add_typer(log, name="log")


@exit_on_error
def receipt(
    record_id: RecordId,
    wait: Annotated[int, typer.Option(min=0, max=600, help="Seconds to wait for it.")] = 30,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Print the proof that a record is in the public log; keep it as a `.tlog-proof` file."""
    with Client(base_url, api_key) as client:
        output.write(wait_for_receipt(client, record_id, time.monotonic() + wait), end="")


@exit_on_error
def verify(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Records (`record show --json`) and receipts, or bundles: zip files and folders."
        ),
    ],
    keys: Annotated[Path | None, _KEYS] = None,
    policy: PolicyFile = None,
    weights: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Model root: the records are replayed with it, too."),
    ] = None,
    keys_in_bundle: Annotated[
        bool,
        typer.Option("--keys-in-bundle", help="Believe the keys of the bundle: shows that it fits together."),
    ] = False,
) -> None:
    """Check records offline: signature, place in the log, openings, bundle (1 if anything does not hold)."""
    if keys is not None and keys_in_bundle:
        raise InvalidRequest("Give --keys or --keys-in-bundle, and not both.", param="keys")
    bundles = [path for path in files if is_bundle(path)]
    loose = [path for path in files if path not in bundles]
    trusted = trusted_policy(policy)
    faults = 0
    if loose:
        if keys is None:
            raise InvalidRequest("Give --keys: files that hold no keys are verified by yours.", param="keys")
        faults += _tell(_loose(loose, Trust(read_keys(keys), trusted)))
    for path in bundles:
        with open_bundle(path) as bundle:
            known = keys_in(bundle) if keys is None else read_keys(keys)
            faults += _tell(verify_bundle(bundle, Trust(known, trusted)))
    if bundles and keys is None:
        faults += _tell_of_keys(believed=keys_in_bundle)
    if weights is not None and not faults:
        # What does not verify is no record, and nothing to be replayed.
        faults += _replayed(weights, [*read_evidence(loose).records, *_bundled(bundles)])
    if faults:
        raise typer.Exit(ExitCode.NO)


def _bundled(bundles: Sequence[Path]) -> Iterator[RecordView]:
    for path in bundles:
        with open_bundle(path) as bundle:
            for _, name in bundle.of_kind("record"):
                yield read_record(bundle.read(name).decode())


def _replayed(weights: Path, views: Sequence[RecordView]) -> int:
    """Replay records with the weights, and say what that shows; how many are not what they should be."""
    faults = 0
    for report in replay_with(weights, views):
        level = report.level if report.reason is None else f"{report.level} {report.reason}"
        told = f"{report.record}  replayed: {level}"
        if report.level in ("EXACT", "WITHIN"):
            output.write(told)
        else:
            output.fail(told)
            faults += 1
    return faults


def _loose(files: Sequence[Path], trust: Trust) -> Iterator[Finding]:
    evidence = read_evidence(files)
    if not evidence.records:
        raise InvalidRequest("None of the files is a record; save one with `transom record show ID --json`.")
    return verify_evidence(evidence, trust)


def _tell(findings: Iterable[Finding]) -> int:
    """Say what was found, as it is; how many faults."""
    faults = 0
    for finding in findings:
        for shown in finding.shown:
            output.write(f"{finding.record}  {shown}")
        for fault in finding.faults:
            output.fail(f"{finding.record}  {fault}")
        faults += len(finding.faults)
    return faults


def _tell_of_keys(*, believed: bool) -> int:
    told = (
        "The keys are those of the bundle: it fits together, and who signed it is not shown. Verify it with "
        "--keys, from `transom log keys` or somebody who kept them."
    )
    if believed:
        output.note(told)
        return 0
    output.fail(told, "Where that is enough, pass --keys-in-bundle.")
    return 1


def _wrong_documents(files: LogFiles, named: Sequence[str]) -> Iterator[str]:
    if not (files.folder / DOCUMENTS).is_dir():
        return
    missing = 0
    for digest in named:
        try:
            missing += files.document(digest) is None
        except NotVerified as error:
            yield error.message
    if missing:
        output.note(f"{missing} documents are not there; `transom mirror` asks for them again")


@log.command("keys")
@exit_on_error
def log_keys(
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    known: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Keys that you trust, from which these must follow."),
    ] = None,
) -> None:
    """Print the keys that sign a server's records and log. Keep them, and compare them with others'."""
    with Client(base_url, api_key) as client:
        text, found = client.send(operations.public_keys().with_text())
    faults = [] if known is None else list(departures(read_keys(known), found))
    for fault in faults:
        output.fail(fault)
    if faults:
        raise typer.Exit(ExitCode.NO)
    output.write_json(text)


@log.command("check")
@exit_on_error
def log_check(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Its files.")],
    keys: Keys,
    policy: PolicyFile = None,
) -> None:
    """Check all files of a log, such as a copy, against each other and its checkpoint (1 if any is wrong).

    Documents that are there have to be those that entries name.
    """
    files = LogFiles(folder, VerifierKey.parse(read_keys(keys).log))
    if files.note() is None:
        raise NotVerified(f"{folder} holds no log: there is no {CHECKPOINT} in it.")
    head = files.checkpoint()
    named: list[str] = []
    faults = list(
        check_files(files, lambda _, entry: named.extend(documents_in([entry])), head, trusted_policy(policy))
    )
    faults += _wrong_documents(files, named)
    for fault in faults:
        output.fail(fault)
    if faults:
        raise typer.Exit(ExitCode.NO)
    output.write(f"{head.size} entries, all as the checkpoint says.")


def trusted_policy(path: Path | None) -> Policy | None:
    """The policy in a file; None where there is no file.

    Raises:
        InvalidRequest: it holds none.
    """
    try:
        return None if path is None else Policy.parse(path.read_bytes().decode())
    except (NotVerified, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} is no policy: {error}.", param="policy") from None


def read_keys(path: Path) -> PublicKeys:
    """The keys in a file.

    Raises:
        InvalidRequest: there are none.
    """
    try:
        return PublicKeys.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise InvalidRequest(f"{path} holds no keys, as `transom log keys` prints them: {error}") from None
