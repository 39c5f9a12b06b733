"""`/v1/points` and `/v1/traces`: inside the machine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from numpy.typing import NDArray
from safetensors.numpy import load_file
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from transom.api.body import AskRoute
from transom.api.dependencies import PathName, RawBody, TheCaller, TheHouse, for_model, one_model
from transom.api.errors import documented
from transom.api.rate_limits import headers_of
from transom.api.reply import while_present
from transom.schema.artifacts import MEDIA_TYPE
from transom.schema.explanations import Explanation
from transom.schema.plan import Plan
from transom.schema.point_views import PointPage, views
from transom.services import explaining, traces

_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The values, in the form that `format` asks for",
        "headers": {
            name: {"description": what, "required": True, "schema": {"type": "string"}}
            for name, what in (
                ("x-transom-record", "Id of the answer's record"),
                ("x-transom-deployment", "Digest of the deployment that computed them"),
            )
        },
        "content": {
            MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}},
            "application/json": {"schema": {"type": "object", "required": ["id", "object", "tensors"]}},
        },
    }
}

router = APIRouter(tags=["Internals"])
asking = APIRouter(route_class=AskRoute, tags=["Internals"])


@router.get("/points", responses=documented(400, 401, 404, 503))
async def list_points(
    house: TheHouse,
    _caller: TheCaller,
    name: PathName,
    model: Annotated[str | None, Query(max_length=200, description="Of which the points are")] = None,
) -> PointPage:
    """The points of a model: where it can be read and written, of what shape, and why some are nowhere."""
    backend, found = traces.points(house, one_model(name, model))
    return PointPage(
        model=backend.served.name,
        deployment=backend.served.deployment.digest,
        data=views(found, backend.tokenizer.vocab_size),
    )


class _Result(FileResponse):
    """A result that is sent once and then deleted, whether or not anybody was there to take it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._delete()

    def _delete(self) -> None:
        Path(self.path).unlink(missing_ok=True)


@asking.post("/traces", responses=_ANSWER | documented(400, 401, 403, 404, 413, 415, 429, 500, 503))
async def create_trace(
    request: Request, house: TheHouse, caller: TheCaller, name: PathName, body: Plan, raw: RawBody
) -> Response:
    """Carry out a plan: runs that read and write inside the model, and values made of what they found."""
    plan = for_model(body, name)
    found = await while_present(request, traces.trace(house, caller, plan, raw))
    headers = {
        "x-transom-record": found.record_id,
        "x-transom-deployment": found.backend.served.deployment.digest,
    } | headers_of(found.meter.standings)
    if plan.format == "safetensors":
        return _Result(found.file, headers=headers, media_type=MEDIA_TYPE)
    try:
        content = await asyncio.to_thread(_as_json, found)
    finally:
        found.file.unlink(missing_ok=True)
    return Response(content, headers=headers, media_type="application/json")


@asking.post(
    "/traces/explain",
    response_model=Explanation,
    responses=documented(400, 401, 403, 404, 413, 415, 429, 503),
)
async def explain_trace(
    request: Request,  # noqa: ARG001  # every route of this kind is given the same
    house: TheHouse,
    caller: TheCaller,
    name: PathName,
    body: Plan,
    raw: RawBody,  # noqa: ARG001
) -> Response:
    """What a plan would take and give, by the same body. Nothing runs; only a request is charged.

    It needs no scope: the answer names those that the plan needs, and which of them the caller lacks.
    """
    found, standings = await explaining.explain(house, caller, for_model(body, name))
    return Response(found.model_dump_json(), headers=headers_of(standings), media_type="application/json")


def _as_json(found: traces.Trace) -> bytes:
    arrays = load_file(found.file)
    served, resolved = found.backend.served, found.task.resolved
    decode = found.backend.tokenizer.decode
    body: dict[str, Any] = {
        "id": found.record_id,
        "object": "trace",
        "model": served.name,
        "deployment": served.deployment.digest,
        "points": resolved.echoes,
        "tensors": {
            tensor.name: {
                "dtype": tensor.dtype,
                "shape": tensor.shape,
                "axes": tensor.axes,
                "sha256": tensor.sha256,
                "data": _numbers(arrays[tensor.name]),
            }
            for tensor in found.traced.tensors
        },
        "generated": {
            run.name: {
                "text": decode([token.token_id for token in run.tokens], skip_special_tokens=True),
                "finish_reason": run.finish_reason,
            }
            for run in found.traced.generated
        },
    }
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _numbers(array: NDArray[Any]) -> NDArray[Any] | float:
    """As they are written in JSON; of an array without axes, the number."""
    return array if array.ndim else float(array)
