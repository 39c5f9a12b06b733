"""`/v1/artifacts`: tensors that a project uploads, for its plans to refer to."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response, StreamingResponse

from transom.api.dependencies import After, Limit, TheCaller, TheHouse
from transom.api.errors import documented
from transom.schema.artifacts import MEDIA_TYPE, ArtifactPage, ArtifactView
from transom.services.planning import artifacts

router = APIRouter(prefix="/artifacts", tags=["Internals"])

ArtifactId = Annotated[
    str,
    Path(
        alias="id",
        description="The SHA-256 of its bytes in hexadecimal, with or without `artifact:` in front",
    ),
]

_FILE = {"schema": {"type": "string", "format": "binary"}}
_BODY = {"requestBody": {"required": True, "content": {MEDIA_TYPE: _FILE}}}
_PUT = documented(400, 401, 403, 404, 409, 413, 415, 429, 500)
_READ = documented(401, 403, 404)


@router.post(
    "",
    status_code=201,
    responses={200: {"model": ArtifactView, "description": "The project has it already"}, **_PUT},
    openapi_extra=_BODY,
)
async def create_artifact(
    request: Request, response: Response, house: TheHouse, caller: TheCaller
) -> ArtifactView:
    """Upload a safetensors file. The same bytes again are the same artifact, and cost nothing."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() and len(declared) < 19 else 0
    view, is_new = await artifacts.put(house, caller, kind, size, request.stream())
    if not is_new:
        response.status_code = 200
    return view


@router.get("", responses=documented(400, 401, 403))
async def list_artifacts(
    house: TheHouse,
    caller: TheCaller,
    after: After = None,
    limit: Limit = 20,
) -> ArtifactPage:
    """The artifacts of the caller's project, newest first."""
    return await artifacts.page(house, caller, after, limit)


@router.get("/{id}", responses=_READ)
async def get_artifact(artifact_id: ArtifactId, house: TheHouse, caller: TheCaller) -> ArtifactView:
    """An artifact's tensors, and how large it is."""
    return await artifacts.show(house, caller, artifact_id)


@router.get(
    "/{id}/content",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The file", "content": {MEDIA_TYPE: _FILE}},
        **documented(401, 403, 404, 500),
    },
)
async def get_artifact_content(
    artifact_id: ArtifactId, house: TheHouse, caller: TheCaller
) -> StreamingResponse:
    """The bytes that were uploaded."""
    size, pieces = await artifacts.content(house, caller, artifact_id)
    headers = {"content-length": str(size), "cache-control": "no-store"}
    return StreamingResponse(pieces, headers=headers, media_type=MEDIA_TYPE)


@router.delete("/{id}", status_code=204, responses=_READ)
async def delete_artifact(artifact_id: ArtifactId, house: TheHouse, caller: TheCaller) -> None:
    """Delete an artifact. Plans that took it stay on record, and cannot be replayed any more."""
    await artifacts.delete(house, caller, artifact_id)
