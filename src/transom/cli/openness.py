"""`transom challenge`, `transom challenges`, `transom transparency`: what an operator is held to."""

from __future__ import annotations

from typing import Annotated

import typer

from transom.cli import output
from transom.cli.output import exit_on_error, write_rows
from transom.cli.researcher import ApiKey, AsJson, BaseUrl
from transom.client import Client, operations
from transom.schema.challenges import Transparency
from transom.tlog.proofs import Proof


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command()(challenge)
    app.command()(challenges)
    app.command()(transparency)


@exit_on_error
def challenge(
    entry: Annotated[str, typer.Argument(help="Index of an entry of the log, or the id of a record.")],
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Have a logged record replayed in public, whosever it is; what comes of it is logged within a day."""
    with Client(base_url, api_key) as client:
        view = client.send(operations.challenge(_index(client, entry)))
    output.write(f"{view.digest}  entry {view.index}: {view.outcome}, until {view.deadline}")


@exit_on_error
def challenges(as_json: AsJson = False, base_url: BaseUrl = None, api_key: ApiKey = None) -> None:
    """Show the newest challenges, and which were met or missed."""
    with Client(base_url, api_key) as client:
        text, page = client.send(operations.challenges().with_text())
    if as_json:
        output.write_json(text)
        return
    rows = [
        (view.outcome, "lots" if view.index is None else str(view.index), view.deadline, view.digest)
        for view in page.data
    ]
    write_rows(("outcome", "entry", "deadline", "challenge"), rows)


@exit_on_error
def transparency(as_json: AsJson = False, base_url: BaseUrl = None, api_key: ApiKey = None) -> None:
    """Show how a server's log stands, what answers there, and which challenges it met."""
    with Client(base_url, api_key) as client:
        text, found = client.send(operations.transparency().with_text())
    if as_json:
        output.write_json(text)
    else:
        write_rows(("what", "is"), _rows(found))


def _rows(found: Transparency) -> list[tuple[str, str]]:
    log, counts = found.log, found.challenges
    age = "none yet" if log.checkpoint_age_s is None else f"{log.checkpoint_age_s:.0f} s old"
    witnesses = ", ".join(witness.name for witness in log.witnesses) or "nobody"
    return [
        ("log", log.origin),
        ("entries", f"{log.published} published of {log.kept}; {log.stands or 'in time'}"),
        ("checkpoint", f"{age}, cosigned by {witnesses}"),
        *(("deployment", f"{each.deployment}  {each.model}") for each in found.deployments),
        ("challenges", f"{counts.met} met, {counts.missed} missed, {counts.open} open"),
        ("lots drawn by", found.beacon or "nothing"),
    ]


def _index(client: Client, entry: str) -> int:
    return int(entry) if entry.isdecimal() else Proof.parse(client.send(operations.receipt(entry))).index
