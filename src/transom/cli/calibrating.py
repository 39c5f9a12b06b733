"""`transom calibrate`: how far honest answers of another engine profile may lie from a server's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transom.cli import output
from transom.cli.output import err, exit_on_error
from transom.client import Client
from transom.client.calibrating import calibrate as measure
from transom.schema.calibrations import LEAST_TOKENS


def register(app: typer.Typer) -> None:
    """Add the command of this module to `app`."""
    app.command()(calibrate)


@exit_on_error
def calibrate(
    one: Annotated[str, typer.Argument(help="Address of the server that answers.")],
    other: Annotated[str, typer.Argument(help="Address of the server that judges.")],
    model: Annotated[str, typer.Option(help="Name under which both serve the model.")],
    tokens: Annotated[int, typer.Option(min=LEAST_TOKENS, help="Tokens to judge, at least.")] = LEAST_TOKENS,
    key: Annotated[
        str | None, typer.Option(envvar="TRANSOM_API_KEY", help="Key at the server that answers.")
    ] = None,
    other_key: Annotated[
        str | None, typer.Option(envvar="TRANSOM_OTHER_KEY", help="Key at the other; left out, the same.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; left out, it is printed.")] = None,
) -> None:
    """Have one server answer and another judge: what its replays of such answers may differ by."""
    with Client(one, key) as answering, Client(other, other_key or key) as judging:
        found = measure(
            answering, judging, model, tokens, lambda done: err.print(f"{done} tokens of {tokens}")
        )
    if out is None:
        output.write_json(found.content.decode())
    else:
        out.write_bytes(found.content)
        output.write(
            f"{out}: {found.differing} of {found.tokens} tokens differ, by {found.margin.mean} logits."
        )
