"""The busiest paths, found by their name.

FastAPI tries the routes of every router in turn, and each router twice. That is nothing beside an answer that
takes a second, and most of the work on one that takes a millisecond. So the paths that generate are looked up
in a dictionary, and handed to the same handlers that their routes have.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from transom.api.body import AskRoute
from transom.api.errors import answer_to
from transom.errors import TransomError


class Express:
    """ASGI middleware before the router.

    Args:
        inner: answers everything else.
        routers: whose `AskRoute`s are looked up by name.
        prefix: what their paths begin with.
    """

    def __init__(self, inner: ASGIApp, routers: Iterable[APIRouter], prefix: str) -> None:
        self._inner = inner
        self._lanes = {
            (method, prefix + route.path): (route, route.get_route_handler())
            for router in routers
            for route in router.routes
            if isinstance(route, AskRoute)
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        lane = self._lanes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if lane is None:
            await self._inner(scope, receive, send)
            return
        scope["route"], handle = lane
        scope["path_params"] = {}
        try:
            response = await handle(Request(scope, receive, send))
        except (TransomError, ClientDisconnect) as error:
            response = answer_to(error)
        with suppress(ClientDisconnect):  # it left while it was being answered
            await response(scope, receive, send)
