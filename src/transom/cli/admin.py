"""`transom admin`: what an operator does on the server's machine, directly on its database."""

from __future__ import annotations

import typer

admin = typer.Typer(
    help="Administer this server, on its own machine; each act is in the trail.", no_args_is_help=True
)
