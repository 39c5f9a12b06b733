"""`transom artifact`: tensors that plans refer to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transom.cli import output
from transom.cli.inside import replacing
from transom.cli.output import exit_on_error
from transom.cli.researcher import ApiKey, AsJson, BaseUrl
from transom.client import Client
from transom.schema.artifacts import ArtifactView

app = typer.Typer(help="Tensors of your project, for its plans to refer to.", no_args_is_help=True)

ArtifactId = Annotated[
    str, typer.Argument(metavar="ID", help="An artifact's id, artifact:…, or its SHA-256 alone.")
]


@app.command("put")
@exit_on_error
def put_artifact(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="A safetensors file.")],
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Upload a safetensors file, and print what plans call it."""
    with Client(base_url, api_key) as client:
        found = client.upload_artifact(file)
    output.write_json(found.model_dump_json()) if as_json else output.write(found.id)


@app.command("list")
@exit_on_error
def list_artifacts(
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many at most.")] = 20,
    after: Annotated[str | None, typer.Option(help="Cursor that the page before ended with.")] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """List the project's artifacts, newest first."""
    with Client(base_url, api_key) as client:
        page = client.artifacts(after, limit)
    if as_json:
        output.write_json(page.model_dump_json())
        return
    rows = [(each.id, str(each.bytes), ", ".join(each.tensors), each.created) for each in page.data]
    output.write_rows(("id", "bytes", "tensors", "created"), rows)
    if page.after is not None:
        output.note(f"More with --after {page.after}")


@app.command("get")
@exit_on_error
def get_artifact(
    artifact: ArtifactId,
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="Where to keep the file itself.")] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Show what an artifact holds; with --out, download it."""
    with Client(base_url, api_key) as client, replacing(out) as file:
        found = client.artifact(artifact)
        if file is not None:
            file.write(client.download_artifact(artifact))
    if as_json:
        output.write_json(found.model_dump_json())
        return
    output.write_rows(("reference", "type", "shape"), _rows(found))


@app.command("rm")
@exit_on_error
def delete_artifact(artifact: ArtifactId, base_url: BaseUrl = None, api_key: ApiKey = None) -> None:
    """Delete an artifact. Plans that took it stay on record, and cannot be replayed any more."""
    with Client(base_url, api_key) as client:
        client.delete_artifact(artifact)


def _rows(found: ArtifactView) -> list[tuple[str, ...]]:
    return [
        (f"{found.id}#{name}", tensor.dtype, " x ".join(map(str, tensor.shape)))
        for name, tensor in found.tensors.items()
    ]
