"""Every path of the HTTP surface, in one place."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Depends, FastAPI

from transom.api import (
    account,
    applications,
    artifacts,
    chat,
    completions,
    errors,
    grants,
    keys,
    log,
    metrics,
    models,
    openapi,
    programme,
    projects,
    records,
    seeds,
    service,
    sign_in,
    sign_in_page,
    terms,
    tokens,
    traces,
    trail,
    usage,
)
from transom.api.dependencies import check_path, refuse_unknown_query
from transom.api.express import Express
from transom.api.metrics import Metrics
from transom.api.passage import Passage
from transom.backends.base import Backend


def install(app: FastAPI, backends: Mapping[str, Backend], *, metrics_public: bool = False) -> None:
    """Give `app` its routes and its errors, and count what passes through them."""
    app.state.metrics = Metrics(backends, public=metrics_public)
    app.add_middleware(Express, routers=(completions.router, chat.router), prefix="/v1")
    app.add_middleware(Passage, app=app, metrics=app.state.metrics)
    errors.install(app)
    openapi.install(app)
    app.include_router(service.router)
    app.include_router(metrics.router)
    app.include_router(log.router, dependencies=[Depends(refuse_unknown_query)])
    app.include_router(_surface())
    # People are not below a model.
    app.include_router(sign_in_page.router)
    for router in (sign_in.router, sign_in.callback, account.router):
        app.include_router(router, prefix="/v1")
    app.include_router(_management(), prefix="/v1")
    app.include_router(_programme(), prefix="/v1")
    # Clients that cannot name a model name it in their base URL.
    app.include_router(
        _surface(), prefix="/models/{name}", include_in_schema=False, dependencies=[Depends(check_path)]
    )


def _surface() -> APIRouter:
    surface = APIRouter(dependencies=[Depends(refuse_unknown_query)])
    surface.include_router(tokens.router)
    for router in (completions.router, chat.router, models.router, records.router, usage.router):
        surface.include_router(router, prefix="/v1")
    for router in (seeds.router, traces.router, traces.asking, artifacts.router):
        surface.include_router(router, prefix="/v1")
    return surface


def _management() -> APIRouter:
    """What people do with a session; no model has a part in it."""
    management = APIRouter(dependencies=[Depends(refuse_unknown_query)])
    for router in (projects.router, projects.invitations, keys.router, terms.router, trail.router):
        management.include_router(router)
    return management


def _programme() -> APIRouter:
    programmed = APIRouter(dependencies=[Depends(refuse_unknown_query)])
    for router in (programme.router, applications.router, applications.reviews, grants.router):
        programmed.include_router(router)
    return programmed
