"""`transom admin`: what an operator does on the server's machine, beside a running server or without one."""

from __future__ import annotations

import typer

from transom.cli import admin_keys, admin_rights

commands = typer.Typer(help="Administration, on the server's machine.", no_args_is_help=True)
admin_keys.register(commands)
admin_rights.register(commands)
