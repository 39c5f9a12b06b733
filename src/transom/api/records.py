"""`/v1/records`: one's own records, and running them again."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from transom.api.body import JsonRoute
from transom.api.dependencies import After, Limit, RecordId, TheCaller, TheHouse
from transom.api.errors import documented
from transom.api.openapi import a_file
from transom.api.reply import while_present
from transom.schema.record import RecordPage, RecordView, ReplayBatch, ReplayReport, ReplayReports
from transom.services.evidence import log, records, replay

router = APIRouter(prefix="/records", tags=["Records"], route_class=JsonRoute)


@router.get("", responses=documented(400, 401, 403))
async def list_records(
    house: TheHouse,
    caller: TheCaller,
    after: After = None,
    limit: Limit = 20,
) -> RecordPage:
    """The records of the caller's project, newest first."""
    return await records.page(house, caller, after, limit)


@router.post("/replay", responses=documented(400, 401, 403, 404, 413, 415, 500, 503))
async def replay_records(
    request: Request, house: TheHouse, caller: TheCaller, body: ReplayBatch
) -> ReplayReports:
    """Replay several records together, which takes less time than one after the other."""
    reports = await while_present(request, replay.replay_all(house, caller, body.ids))
    return ReplayReports(data=tuple(reports))


@router.get("/{id}", responses=documented(401, 404))
async def get_record(record_id: RecordId, house: TheHouse, caller: TheCaller) -> RecordView:
    """A whole record; only its owner's project may read it."""
    return await records.show(house, caller, record_id)


@router.get(
    "/{id}/receipt",
    responses=a_file("text/plain", "A file of https://c2sp.org/tlog-proof") | documented(401, 404),
)
async def get_receipt(record_id: RecordId, house: TheHouse, caller: TheCaller) -> Response:
    """Proof that the record is in the public log, to be kept and verified offline: a `.tlog-proof` file."""
    return PlainTextResponse(await log.receipt(house, caller, record_id))


@router.post("/{id}/replay", responses=documented(401, 404, 500, 503))
async def replay_record(
    request: Request, record_id: RecordId, house: TheHouse, caller: TheCaller
) -> ReplayReport:
    """Replay a record: `EXACT`, or where it differs."""
    return await while_present(request, replay.replay(house, caller, record_id))
