"""`/health` and `/ready`: for whoever watches the server."""

from __future__ import annotations

from fastapi import APIRouter, Response

from transom.api.dependencies import TheHouse

router = APIRouter(tags=["Service"])


@router.get("/health")
async def health() -> dict[str, str]:
    """The process is up."""
    return {"status": "ok"}


@router.get("/ready", responses={503: {"description": "Some model is not being served now"}})
async def ready(house: TheHouse, response: Response) -> dict[str, bool]:
    """Whether each model is being served; 200 once all are, and until the server is told to end."""
    state = {name: backend.ready and not house.draining for name, backend in sorted(house.backends.items())}
    response.status_code = 200 if all(state.values()) else 503
    return state
