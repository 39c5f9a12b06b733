"""`/v1/points` and `/v1/traces`: inside the machine."""

from __future__ import annotations

import asyncio
import re
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from numpy.typing import NDArray
from safetensors.numpy import load_file
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from transom.api.body import AskRoute
from transom.api.dependencies import PathName, RawBody, RecordId, TheCaller, TheHouse, for_model, one_model
from transom.api.errors import documented
from transom.api.rate_limits import headers_of
from transom.api.reply import while_present
from transom.errors import InvalidRequest
from transom.schema.artifacts import MEDIA_TYPE
from transom.schema.explanations import Explanation
from transom.schema.plan import Plan
from transom.schema.point_views import PointPage, views
from transom.schema.record import rfc3339
from transom.services.spool import Kept
from transom.services.tracing import explaining, results, traces

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

_FILE: dict[int | str, dict[str, Any]] = {
    status: {"description": what, "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
    for status, what in ((200, "The whole file"), (206, "The range that was asked for"))
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


class _File(FileResponse):
    """A file that may be large."""

    chunk_size = 1 << 20


class _Result(_File):
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
    if found.kept is not None:
        content = orjson.dumps(_listed(found) | _in_parts(found.kept))
    elif plan.format == "safetensors":
        return _Result(found.file, headers=headers, media_type=MEDIA_TYPE)
    else:
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


@router.get("/traces/{id}/file", responses=_FILE | documented(400, 401, 403, 404, 416))
async def get_result(request: Request, record_id: RecordId, house: TheHouse, caller: TheCaller) -> Response:
    """The file of a result that is kept, or a byte range of it (RFC 9110, section 14)."""
    kept = await results.find(house, caller, record_id)
    _check_range(request.headers.get("range"), kept.bytes)
    # It is written once, so that its name says which it is.
    headers = {"etag": f'"{kept.record_id}"', "cache-control": "no-store"}
    return _File(kept.file, headers=headers, media_type=MEDIA_TYPE)


@router.delete("/traces/{id}/file", status_code=204, responses=documented(401, 403, 404))
async def delete_result(record_id: RecordId, house: TheHouse, caller: TheCaller) -> None:
    """Delete a result that is kept, before its time: it gives room for the next."""
    await results.discard(house, caller, record_id)


def _check_range(given: str | None, size: int) -> None:
    """Pass a range that there is; Starlette would refuse others in words of its own.

    Raises:
        InvalidRequest: there is not, or it is no range.
    """
    if given is None:
        return
    found = re.fullmatch(r"bytes=(\d{0,20})-(\d{0,20})", given.strip())
    if found is None or found[0].endswith("=-") or (found[1] and found[2] and int(found[1]) > int(found[2])):
        raise InvalidRequest(
            f"{given[:60]!r} is no range that is answered; write one, as in bytes=1000- or bytes=0-999.",
            param="range",
        )
    if (int(found[1]) if found[1] else size - int(found[2])) >= size:
        raise InvalidRequest(
            f"The file has {size} bytes, and none from {given[:60]!r} on.",
            param="range",
            code="range_not_satisfiable",
        )


def _in_parts(kept: Kept) -> dict[str, Any]:
    starts = accumulate((part.bytes for part in kept.parts), initial=0)
    return {
        "file": {"url": f"/v1/traces/{kept.record_id}/file", "bytes": kept.bytes},
        "parts": [
            {"start": start, "bytes": part.bytes, "sha256": part.sha256}
            for start, part in zip(starts, kept.parts, strict=False)
        ],
        "expires": rfc3339(kept.expires),
    }


def _as_json(found: traces.Trace) -> bytes:
    arrays, body = load_file(found.file), _listed(found)
    for name, tensor in body["tensors"].items():
        tensor["data"] = _numbers(arrays[name])
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _listed(found: traces.Trace) -> dict[str, Any]:
    """All that is said of a result, but for its numbers."""
    served, resolved = found.backend.served, found.task.resolved
    decode = found.backend.tokenizer.decode
    return {
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


def _numbers(array: NDArray[Any]) -> NDArray[Any] | float:
    """As they are written in JSON; of an array without axes, the number."""
    return array if array.ndim else float(array)
