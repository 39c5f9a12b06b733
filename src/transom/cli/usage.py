"""`transom usage`: what a key's project used, and what is left."""

from __future__ import annotations

from typing import Annotated

import typer

from transom.cli import output
from transom.cli.output import exit_on_error
from transom.cli.researcher import ApiKey, AsJson, BaseUrl
from transom.client import Client
from transom.client.usage import usage as ask


def register(app: typer.Typer) -> None:
    """Add the command of this module to `app`."""
    app.command()(usage)


@exit_on_error
def usage(
    days: Annotated[int, typer.Option(min=1, max=366, help="How far back.")] = 30,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Show what your project used, and where the limits of your key stand."""
    with Client(base_url, api_key) as client:
        text, found = client.send(ask(days).with_text())
    if as_json:
        output.write_json(text)
        return
    rows = [
        (
            each.account,
            each.budget,
            f"{each.used:,}",
            f"{each.limit:,}",
            "" if each.reset_seconds is None else f"{each.reset_seconds} s",
        )
        for each in found.limits
    ]
    output.write_rows(("limit of", "budget", "used", "limit", "resets in"), rows)
    output.write("")
    by_day = [(each.day, f"{each.requests:,}", f"{each.tokens:,}") for each in found.days]
    output.write_rows(("day (UTC)", "requests", "tokens"), by_day)
