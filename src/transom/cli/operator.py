"""Commands of the operator: models, keys, and the server.

Server and engine are imported by the commands that need them: `transom key list` should not load torch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from transom.cli.output import err, exit_on_error, out, write, write_rows
from transom.config import Settings
from transom.errors import OperatorError

T = TypeVar("T")

models = typer.Typer(help="Models in the library.", no_args_is_help=True)
keys = typer.Typer(help="Keys of the local project.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the operator's commands."""
    app.add_typer(models, name="model")
    app.add_typer(keys, name="key")
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


@keys.command("create")
@exit_on_error
def create_key(
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires.")] = None,
) -> None:
    """Make a key and print it, once and never again."""
    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    new = _with_keys(lambda store: store.create(name=name, expires_at=expires))
    err.print(f"Key {new.info.id} of project {new.info.project_id}. It is shown this once:", style="dim")
    write(new.text)


@keys.command("list")
@exit_on_error
def list_keys() -> None:
    """Every key, without its secret."""
    rows = [
        (info.id, info.name, *map(_moment, (info.created, info.expires, info.revoked, info.last_used)))
        for info in _with_keys(lambda store: store.list_keys())
    ]
    write_rows(("id", "name", "created", "expires", "revoked", "last used"), rows)


@keys.command("revoke")
@exit_on_error
def revoke_key(key_id: str) -> None:
    """Refuse a key from now on, everywhere within two seconds."""
    info = _with_keys(lambda store: store.revoke(key_id))
    out.print(f"Key {info.id} was revoked at {info.revoked:%Y-%m-%d %H:%M:%S} UTC.")


@exit_on_error
def check() -> None:
    """Check the database: its integrity, and that no project's records have a gap."""
    from transom.app import open_database
    from transom.records.audit import find_gaps

    database = open_database(Settings())
    problems = [*database.check(), *database.read_sync(find_gaps)]
    database.close()
    if problems:
        raise OperatorError("The database is damaged: " + "; ".join(problems))
    out.print("The database is sound.")


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


def _with_keys(work: Callable[[Any], Awaitable[T]]) -> T:
    """Open the key store of this home, do `work` with it, and close it again."""
    from transom.app import key_store, open_database

    settings = Settings()
    database = open_database(settings)
    try:
        return asyncio.run(_await(work(key_store(settings, database))))
    finally:
        database.close()


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else "-"


async def _await(work: Awaitable[T]) -> T:
    return await work
