"""`transom export`: records and all that proves them, in one file."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from transom.cli import output
from transom.cli.output import exit_on_error
from transom.cli.researcher import ApiKey, BaseUrl
from transom.client import Client
from transom.client.bundle.gathering import Gatherer
from transom.client.bundle.writing import write_zip
from transom.errors import InvalidRequest

_LICENCE = re.compile(r"https?://[!-~]{1,500}")


def _a_file(told: str) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(exists=True, dir_okay=False, help=told)
    return found


def register(app: typer.Typer) -> None:
    """Add the command of this module to `app`."""
    app.command()(export)


@exit_on_error
def export(  # noqa: PLR0913, PLR0917  # one for each option
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of records.")],
    crate: Annotated[Path, typer.Option(dir_okay=False, help="The zip file to make.")],
    policy: Annotated[Path | None, _a_file("Who must have cosigned (c2sp.org/tlog-policy).")] = None,
    result: Annotated[list[Path] | None, _a_file("Tensors that a plan returned. Repeatable.")] = None,
    scorer: Annotated[Path | None, _a_file("A script that scores the answers.")] = None,
    lock: Annotated[Path | None, _a_file("The lock file of what the scorer needs.")] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="Under which you share it, as a URL; else it says none.")
    ] = None,
    wait: Annotated[int, typer.Option(min=0, max=600, help="Seconds to wait for receipts.")] = 30,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there.")] = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Bundle records, receipts, manifests, plans and results; see `transom verify`. It shows the prompts."""
    if crate.exists() and not force:
        raise InvalidRequest(f"{crate} is there already; pass --force to overwrite it.", param="crate")
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise InvalidRequest("A licence is given as a URL, such as that of its SPDX page.", param="license")
    if lock is not None and scorer is None:
        raise InvalidRequest("--lock is the lock file of a --scorer; give both.", param="lock")
    with Client(base_url, api_key) as client, TemporaryDirectory() as folder:
        gatherer = Gatherer(client, Path(folder), wait)
        gatherer.records(ids)
        gatherer.results(result or ())
        if policy is not None:
            gatherer.policy(policy)
        for path in filter(None, (scorer, lock)):
            gatherer.scorer(path)
        files, seen = gatherer.described(licence)
        write_zip(crate, files, seen)
    for deployment in gatherer.without_manifest():
        output.note(
            f"{deployment} is no longer served: its manifest is missing, and verification will say so"
        )
    output.note(f"{crate}: {len(ids)} records, {len(files)} files; questions and answers in it can be read")
