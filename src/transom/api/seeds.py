"""`/v1/seeds`: promises of the server, for seeds that neither side picks."""

from __future__ import annotations

from fastapi import APIRouter

from transom.api.body import JsonRoute
from transom.api.dependencies import TheCaller, TheHouse
from transom.api.errors import documented
from transom.schema.randomness import Promises, SeedsBody
from transom.services.answering import seeds

router = APIRouter(prefix="/seeds", route_class=JsonRoute, tags=["Records"])


@router.post("", responses=documented(400, 401, 403, 404, 409, 413, 415))
async def promise_seeds(house: TheHouse, caller: TheCaller, body: SeedsBody) -> Promises:
    """Commit to secrets that are drawn now.

    Name a commitment in `transom.seed` of a request, with a nonce that you draw after it: the request's seed
    is a hash of the secret and the nonce, and both stand in its record.
    """
    return await seeds.promise(house, caller, body.count)
