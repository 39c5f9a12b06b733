"""Commands that look inside: `points`, `explain`, `trace`."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from transom.cli import explained, output
from transom.cli.output import exit_on_error
from transom.cli.researcher import ApiKey, AsJson, BaseUrl
from transom.client import Client, downloads
from transom.errors import InvalidRequest, TransomError
from transom.schema.manifest import ListedTensor
from transom.schema.point_views import PointView


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command()(points)
    app.command()(explain)
    app.command()(trace)


@exit_on_error
def points(
    model: Annotated[str | None, typer.Argument(help="May be left out where one is served.")] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """List where a model can be read and written, of what shape, and why some points are nowhere."""
    with Client(base_url, api_key) as client:
        page = client.points(model=model)
    if as_json:
        typer.echo(page.model_dump_json())
        return
    rows = [(point.name, _layers(point), _shape(point), _uses(point)) for point in page.data]
    output.write_rows(("point", "layers", "numbers of a position", "use"), rows)


@exit_on_error
def explain(
    plan: Annotated[str, typer.Argument(help="A file with a plan in JSON; - reads standard input.")],
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Tell what a plan would take and give, before anything runs: what is shared, the cost, and the bytes."""
    with Client(base_url, api_key) as client:
        found = client.explain(_read(plan))
    if as_json:
        typer.echo(found.model_dump_json())
        return
    output.write_rows(("what", "how much"), list(explained.account(found)))
    output.write_rows(("value", "type", "shape", "axes", "bytes"), explained.values(found))
    if found.missing_scopes:
        output.note(f"This key lacks {', '.join(found.missing_scopes)}; the plan would be refused.")


@exit_on_error
def trace(
    plan: Annotated[str, typer.Argument(help="A file with a plan in JSON; - reads standard input.")],
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Where to keep the result, as safetensors.")
    ] = None,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Carry out a plan: read and write inside a model."""
    given = _read(plan)
    # The file is opened first: a result that cannot be kept would have been charged all the same.
    with Client(base_url, api_key) as client, replacing(out) as file:
        found = client.manifest(given)
        output.note(f"{found.id} · {found.deployment[:19]} · again: transom replay {found.id}")
        if file is None:
            with suppress(TransomError):  # then it is kept until its time is over
                client.discard(found)
        else:
            client.fetch(found, file)
    rows = [_row(name, tensor) for name, tensor in found.tensors.items()]
    output.write_rows(("value", "type", "shape", "axes", "sha256"), rows)


def _read(plan: str) -> dict[str, Any]:
    """The plan of a file.

    Raises:
        InvalidRequest: there is none.
    """
    try:
        text = sys.stdin.read() if plan == "-" else Path(plan).read_text(encoding="utf-8")
        given = json.loads(text)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{plan} holds no plan in JSON: {error}", param="plan") from error
    if not isinstance(given, dict):
        raise InvalidRequest(f"{plan} holds no JSON object.", param="plan")
    return given


def replacing(path: Path | None) -> AbstractContextManager[BinaryIO | None]:
    """A file that takes the place of `path` once it is whole; without a path, none.

    Raises:
        InvalidRequest: nothing can be written there.
    """
    return nullcontext() if path is None else downloads.replacing(path)


def _row(name: str, tensor: ListedTensor) -> tuple[str, ...]:
    return name, tensor.dtype, " x ".join(map(str, tensor.shape)), ", ".join(tensor.axes), tensor.sha256


def _layers(point: PointView) -> str:
    if point.layers is None:
        return "the model's"
    return f"{point.layers[0]} to {point.layers[-1]}" if point.layers else "none"


def _shape(point: PointView) -> str:
    if not point.readable:
        return point.reason or "computed inside one operation"
    width = "its length" if point.width is None else str(point.width)
    return width if point.heads is None else f"{point.heads} x {width}"


def _uses(point: PointView) -> str:
    uses = {"read": point.readable, "write": point.writable, "gradient": point.differentiable}
    return ", ".join(use for use, possible in uses.items() if possible)
