"""Commands that look inside: `points`, `trace`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from transom.cli import output
from transom.cli.output import exit_on_error
from transom.cli.researcher import ApiKey, AsJson, BaseUrl
from transom.client import Client, Traced
from transom.errors import InvalidRequest
from transom.schema.point_views import PointView


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command()(points)
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
def trace(
    plan: Annotated[str, typer.Argument(help="A file with a plan in JSON; - reads standard input.")],
    out: Annotated[Path | None, typer.Option(help="Where to keep the result, as safetensors.")] = None,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Carry out a plan: read and write inside a model."""
    given = _read(plan)
    with Client(base_url, api_key) as client:
        found = client.trace(given)
    if out is not None:
        _keep(out, found)
    rows = [
        (name, str(tensor.data.dtype), " x ".join(map(str, tensor.data.shape)), ", ".join(tensor.axes))
        for name, tensor in found.items()
    ]
    output.write_rows(("value", "type", "shape", "axes"), rows)
    typer.echo(f"record {found.record}")


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
    # What is kept is safetensors.
    return given | {"format": "safetensors"}


def _keep(out: Path, found: Traced) -> None:
    partial = out.with_name(f".{out.name}.partial")
    partial.write_bytes(found.content)
    partial.replace(out)


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
