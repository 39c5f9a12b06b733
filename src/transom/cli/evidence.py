"""`transom receipt`, `transom verify`, `transom log`: proof that needs no server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transom.cli import output
from transom.cli.output import ExitCode, exit_on_error
from transom.cli.researcher import ApiKey, BaseUrl, RecordId
from transom.client import Client, operations
from transom.client.offline import Trust, departures, read_evidence, verify_evidence
from transom.errors import InvalidRequest, NotVerified
from transom.schema.envelopes import PublicKeys
from transom.tlog.files import LogFiles, check_files
from transom.tlog.notes import VerifierKey
from transom.tlog.policies import Policy

log = typer.Typer(help="The public log.", no_args_is_help=True)

Keys = Annotated[
    Path,
    typer.Option("--keys", exists=True, dir_okay=False, help="Keys that you trust, of `transom log keys`."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command()(receipt)
    app.command()(verify)
    app.add_typer(log, name="log")


@exit_on_error
def receipt(record_id: RecordId, base_url: BaseUrl = None, api_key: ApiKey = None) -> None:
    """Print the proof that a record is in the public log; keep it as a `.tlog-proof` file."""
    with Client(base_url, api_key) as client:
        output.write(client.send(operations.receipt(record_id)), end="")


@exit_on_error
def verify(
    files: Annotated[list[Path], typer.Argument(help="Records (`record show --json`) and their receipts.")],
    keys: Keys,
    policy: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Who must have cosigned (c2sp.org/tlog-policy)."),
    ] = None,
) -> None:
    """Check records offline: signature, place in the log, openings (1 if anything does not hold)."""
    evidence = read_evidence(files)
    if not evidence.records:
        raise InvalidRequest("None of the files is a record; save one with `transom record show ID --json`.")
    trusted = None if policy is None else trusted_policy(policy)
    findings = list(verify_evidence(evidence, Trust(read_keys(keys), trusted)))
    for finding in findings:
        for shown in finding.shown:
            output.write(f"{finding.record}  {shown}")
        for fault in finding.faults:
            output.fail(f"{finding.record}  {fault}")
    if any(finding.faults for finding in findings):
        raise typer.Exit(ExitCode.NO)


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
) -> None:
    """Check all files of a log, such as a copy, against each other and its checkpoint (1 if any is wrong)."""
    files = LogFiles(folder, VerifierKey.parse(read_keys(keys).log))
    head = files.checkpoint()
    faults = 0
    for fault in check_files(files, head=head):
        output.fail(fault)
        faults += 1
    if faults:
        raise typer.Exit(ExitCode.NO)
    output.write(f"{head.size} entries, all as the checkpoint says.")


def trusted_policy(path: Path) -> Policy:
    """The policy in a file.

    Raises:
        InvalidRequest: there is none.
    """
    try:
        return Policy.parse(path.read_text("utf-8"))
    except (UnicodeDecodeError, NotVerified) as error:
        raise InvalidRequest(f"{path} holds no policy of a log: {error}") from None


def read_keys(path: Path) -> PublicKeys:
    """The keys in a file.

    Raises:
        InvalidRequest: there are none.
    """
    try:
        return PublicKeys.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise InvalidRequest(f"{path} holds no keys, as `transom log keys` prints them: {error}") from None
