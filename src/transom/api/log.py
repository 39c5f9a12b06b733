"""`/log`: the public log, as static files that anybody may fetch and keep; and the keys that sign.

(https://c2sp.org/tlog-tiles)
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from fastapi.responses import PlainTextResponse

from transom.api.dependencies import TheHouse
from transom.api.errors import documented
from transom.api.openapi import a_file
from transom.errors import NotFound
from transom.schema.envelopes import PublicKeys
from transom.schema.randomness import DIGEST
from transom.schema.statements import VERSION, json_schema
from transom.services.evidence import log

router = APIRouter(tags=["Log"])

_BRIEFLY = "no-cache"
_FOR_EVER = "public, max-age=31536000, immutable"


@router.get("/log/checkpoint", responses=a_file("text/plain", "A signed note") | documented(404))
async def get_checkpoint(house: TheHouse) -> Response:
    """The newest checkpoint: size and root of the log, signed."""
    return PlainTextResponse(await log.checkpoint(house), headers={"cache-control": _BRIEFLY})


@router.get(
    "/log/tile/{path:path}", responses=a_file("application/octet-stream", "A tile") | documented(400, 404)
)
async def get_tile(
    path: Annotated[str, Path(description="Level and index", pattern="^[0-9a-z/.]{0,80}$")], house: TheHouse
) -> Response:
    """Hashes of the log's tree, or its entries: 256 to a file, less to the newest."""
    content = await log.tile(house, f"tile/{path}")
    headers = {"cache-control": _FOR_EVER}
    return Response(content, media_type="application/octet-stream", headers=headers)


@router.get(
    "/log/documents/{digest}", responses=a_file("application/json", "The document") | documented(400, 404)
)
async def get_document(
    digest: Annotated[str, Path(description="As its entry has it", pattern=DIGEST)],
    house: TheHouse,
) -> Response:
    """A public document that has an entry: a deployment, a key that signs records, a calibration."""
    content = await log.document(house, digest)
    return Response(content, media_type="application/json", headers={"cache-control": _FOR_EVER})


@router.get("/.well-known/transom-keys")
async def get_keys(house: TheHouse) -> PublicKeys:
    """The keys that sign records and the log. Keep them: what a server says later proves nothing."""
    return log.public_keys(house)


@router.get("/schema/record-{version}.json", responses=documented(400, 404))
async def get_schema(
    version: Annotated[str, Path(description="Such as v6", pattern="^v[0-9]{1,3}$")],
) -> dict[str, Any]:
    """The JSON Schema of the statements of records, of the version that is made now."""
    if version != VERSION:
        raise NotFound(f"There is no schema of records {version[:20]!r} here; records are {VERSION}.")
    return json_schema()
