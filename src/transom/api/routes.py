"""Every path of the HTTP surface, in one place."""

from __future__ import annotations

from fastapi import APIRouter, Depends, FastAPI

from transom.api import chat, completions, errors, models, openapi, records, service, tokens
from transom.api.dependencies import check_path, refuse_unknown_query


def install(app: FastAPI) -> None:
    """Give `app` its routes and its errors."""
    errors.install(app)
    openapi.install(app)
    app.include_router(service.router)
    app.include_router(_surface())
    # Clients that cannot name a model name it in their base URL.
    app.include_router(
        _surface(), prefix="/models/{name}", include_in_schema=False, dependencies=[Depends(check_path)]
    )


def _surface() -> APIRouter:
    surface = APIRouter(dependencies=[Depends(refuse_unknown_query)])
    surface.include_router(tokens.router)
    for router in (completions.router, chat.router, models.router, records.router):
        surface.include_router(router, prefix="/v1")
    return surface
