"""`transom`: the command line."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import typer

from transom import __version__
from transom.cli import (
    account,
    applicant,
    artifacts,
    bundling,
    calibrating,
    evidence,
    inside,
    keys,
    observers,
    openness,
    output,
    projects,
    researcher,
    rights,
    top,
    usage,
    watch,
)
from transom.cli.output import ExitCode

app = typer.Typer(
    name="transom",
    help="Open access to AI models whose weights stay where they are.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
researcher.register(app)
inside.register(app)
account.register(app)
app.add_typer(artifacts.app, name="artifact")
app.add_typer(projects.app, name="project")
app.add_typer(keys.app, name="key")
rights.register(app)
evidence.register(app)
observers.register(app)
openness.register(app)
calibrating.register(app)
bundling.register(app)
applicant.register(app)
usage.register(app)
top.register(app)
watch.register(app)

if find_spec("fastapi") is not None:
    # A researcher's install has no server; its command line does not mention one.
    from transom.cli import operator, witness

    operator.register(app)
    witness.register(app)


_OF_THE_SERVER = {"serve", "check", "model", "admin", "mail", "witness"}


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Entry point of the `transom` command."""
    if find_spec("fastapi") is None and sys.argv[1:2] and sys.argv[1] in _OF_THE_SERVER:
        output.fail(f"`transom {sys.argv[1]}` is of the server: pip install 'transom[server,engine]'")
        raise SystemExit(ExitCode.USAGE)
    app()
