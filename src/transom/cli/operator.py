"""Commands of the operator: models, administration, and the server.

Server and engine are imported by the commands that need them: `transom admin key list` should not load torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from transom.cli import (
    admin_keys,
    admin_log,
    admin_people,
    admin_programme,
    admin_rights,
    admin_signing,
    admin_vault,
)
from transom.cli.admin import admin
from transom.cli.output import err, exit_on_error, out, write, write_rows
from transom.config import Settings
from transom.errors import ConfigurationError, NotVerified, OperatorError

if TYPE_CHECKING:
    from transom.storage.database import Database

models = typer.Typer(help="Models in the library.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the operator's commands."""
    app.add_typer(models, name="model")
    app.command()(mail)
    for part in (
        admin_keys,
        admin_log,
        admin_people,
        admin_programme,
        admin_rights,
        admin_signing,
        admin_vault,
    ):
        part.register(admin)
    app.add_typer(admin, name="admin")
    app.command()(serve)
    app.command()(check)


@models.command("add")
@exit_on_error
def add_model(
    source: Annotated[
        str, typer.Argument(help="A Hugging Face folder or hub id, a GGUF file, or smollm2-135m-instruct.")
    ],
    name: Annotated[str | None, typer.Option(help="Name to serve it under.")] = None,
) -> None:
    """Convert a model to safetensors once, and note every file's digest."""
    from transom.backends.library import ModelLibrary
    from transom.engine.convert import convert

    library = ModelLibrary(Settings().library)
    with Progress(
        TextColumn("{task.description:28}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=err,
    ) as progress:
        stages: dict[str, Any] = {}

        def show(stage: str, fraction: float) -> None:
            if stage not in stages:
                stages[stage] = progress.add_task(stage, total=1.0)
            progress.update(stages[stage], completed=fraction)

        added = library.add(source, name=name, convert=convert, progress=show)
    out.print(f"{added.name} is in the library: {added.path}")


@models.command("list")
@exit_on_error
def list_models() -> None:
    """What is in the library."""
    from transom.backends.library import ModelLibrary

    rows = [
        (name, manifest.architecture, f"{manifest.parameter_count:,}", manifest.digest)
        for name, manifest in ModelLibrary(Settings().library).list()
    ]
    write_rows(("name", "architecture", "parameters", "digest"), rows)


@models.command("verify")
@exit_on_error
def verify_model(name: str) -> None:
    """Read every file of a model again, and compare it with the manifest."""
    from transom.backends.library import ModelLibrary
    from transom.backends.manifest import verify

    manifest = verify(ModelLibrary(Settings().library).path(name))
    out.print(f"{name} is unchanged: {manifest.digest}")


@exit_on_error
def mail(
    mail_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Which; else all are listed.")] = None,
) -> None:
    """Show the mails that this server wrote into its folder, for want of a mail server."""
    from transom.access.people.mail import MailFolder

    folder = MailFolder(Settings().mails)
    if mail_id is not None:
        write(folder.get(mail_id).text, end="")
        return
    rows = [
        (each.id, f"{each.written:%Y-%m-%d %H:%M}", each.to, each.subject) for each in folder.list_mails()
    ]
    write_rows(("id", "written", "to", "subject"), rows)


@exit_on_error
def check() -> None:
    """Check the database (integrity, gaps, statements, places in the log, the trail) and the log's files.

    Openings are sealed: that one was changed is seen when it is read.
    """
    from sqlalchemy.exc import DBAPIError

    from transom.app import open_database

    settings = Settings()
    if settings.database_url is None and not (settings.home / "transom.db").is_file():
        raise ConfigurationError(f"There is no database in {settings.home}. Set TRANSOM_HOME.")
    try:
        database = open_database(settings)
        try:
            problems = _problems(settings, database)
        finally:
            database.close()
    except (DBAPIError, OSError) as error:
        reason = getattr(error, "orig", None) or error
        raise OperatorError(f"The database cannot be read: {reason}") from None
    if problems:
        raise OperatorError("The database is damaged: " + "; ".join(problems))
    out.print("The database is sound.")


def _problems(settings: Settings, database: Database) -> list[str]:
    from transom.access.rights import trail
    from transom.records.audit import find_altered, find_gaps, find_misplaced

    problems = [*database.check(), *database.read_sync(find_gaps)]
    problems += database.read_sync(lambda connection: list(find_altered(connection)))
    problems += database.read_sync(lambda connection: list(find_misplaced(connection)))
    problems += database.read_sync(lambda connection: list(trail.broken(connection)))
    return problems + _problems_of_log(settings, database)


def _problems_of_log(settings: Settings, database: Database) -> list[str]:
    from transom.tlog.files import LogFiles
    from transom.tlog.keys import open_key
    from transom.tlog.publishing import find_departures

    try:
        log = LogFiles(settings.log, open_key(settings.log_key, settings.log_origin).verifier)
        return list(find_departures(database, log))
    except NotVerified as error:
        return [error.message]


@exit_on_error
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Serve this model; may be repeated.")] = None,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="Answer requests without a key.")] = False,
    welcome: Annotated[
        bool, typer.Option("--welcome", help="Once up, ask, replay, and print a key.")
    ] = False,
    env_file: Annotated[
        Path | None, typer.Option(help="With --welcome: also write OPENAI_BASE_URL and OPENAI_API_KEY here.")
    ] = None,
) -> None:
    """Serve the library's models until interrupted."""
    from transom.cli.server import run

    chosen = {"host": host, "port": port, "models": tuple(model) if model else None}
    changes = {key: value for key, value in chosen.items() if value is not None}
    if anonymous:
        changes["allow_anonymous"] = True
    run(Settings(**changes), welcome=welcome or env_file is not None, env_file=env_file)  # type: ignore[arg-type]
