"""`/v1/auth`: signing in, and signing out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from transom.access.sign_in.oidc import Answer
from transom.api.body import JsonRoute
from transom.api.dependencies import TheHouse, TheSignedIn, get_house, no_store, refuse_unknown_query
from transom.api.errors import documented
from transom.api.visitor import (
    bound_visitor,
    give_session,
    maybe_signed_in,
    refuse_cross_site,
    signed_in_of,
    take_session,
    visitor_of,
)
from transom.schema.account import (
    LinkAsked,
    LinkRedeemed,
    LinkRequest,
    PasskeyAnswer,
    PasskeyChallenge,
    ProviderStart,
    ProviderUrl,
    ProviderView,
    Welcomed,
)
from transom.services.people import sign_in


async def from_here(request: Request) -> None:
    """Refuse what a page of another site sent, before its body is read."""
    refuse_cross_site(request, get_house(request).entrance)


class OpenRoute(JsonRoute):
    """A route for people who are not signed in yet."""

    most_bytes = 64 << 10

    async def admit(self, request: Request) -> object:
        """Refuse what another site sends."""
        await from_here(request)
        return None


router = APIRouter(
    prefix="/auth",
    tags=["Sign-in"],
    route_class=OpenRoute,
    dependencies=[Depends(no_store), Depends(from_here), Depends(refuse_unknown_query)],
)

callback = APIRouter(prefix="/auth", tags=["Sign-in"], dependencies=[Depends(no_store)])
"""Providers add what they like to the query of a callback; what is not known there is left alone."""

_ERRORS = (400, 401, 403, 404, 413, 415, 503)

ProviderId = Annotated[str, Path(alias="provider", max_length=100, description="A provider's id")]


@router.post("/links", status_code=202, responses=documented(*_ERRORS, 429))
async def ask_link(request: Request, response: Response, house: TheHouse, body: LinkRequest) -> LinkAsked:
    """Have a link and a code mailed to an address; the answer is the same for every address."""
    visitor = bound_visitor(request, response, house.entrance, body.session)
    return await sign_in.ask_link(house, body, visitor)


@router.post("/links/redeem", responses=documented(*_ERRORS))
async def redeem_link(request: Request, response: Response, house: TheHouse, body: LinkRedeemed) -> Welcomed:
    """Sign in by the token of a link, or by the code beside it; once. Whoever is new gets an account."""
    visitor = visitor_of(request, house.entrance, body.session)
    new, going = await sign_in.redeem_link(house, body, visitor)
    give_session(response, house.entrance, new)
    return sign_in.welcome(new, going)


@router.post("/passkeys/challenge", responses=documented(400, 401, 403, 409, 429, 503))
async def ask_passkey(request: Request, house: TheHouse) -> PasskeyChallenge:
    """What to ask an authenticator, so that it signs in whoever holds it."""
    return await sign_in.ask_passkey(house, visitor_of(request, house.entrance, "cookie"))


@router.post("/passkeys", responses=documented(*_ERRORS, 409))
async def by_passkey(request: Request, response: Response, house: TheHouse, body: PasskeyAnswer) -> Welcomed:
    """Sign in by what the authenticator answered."""
    new = await sign_in.by_passkey(house, body, visitor_of(request, house.entrance, "cookie"))
    give_session(response, house.entrance, new)
    return sign_in.welcome(new)


@router.get("/providers", responses=documented(400, 403))
async def list_providers(house: TheHouse) -> list[ProviderView]:
    """Other places by which one may sign in here."""
    return sign_in.providers(house)


@router.post("/providers/{provider}", responses=documented(*_ERRORS, 429))
async def start_provider(
    request: Request, response: Response, provider: ProviderId, house: TheHouse, body: ProviderStart
) -> ProviderUrl:
    """Where the browser goes to sign in with a provider, or to add an identity to the account it is in."""
    visitor = bound_visitor(request, response, house.entrance, "cookie")
    linking = await signed_in_of(request, house.entrance) if body.link else None
    return ProviderUrl(url=await sign_in.start_provider(house, provider, body, visitor, linking))


@callback.get(
    "/providers/{provider}/callback",
    status_code=303,
    response_class=RedirectResponse,
    responses=documented(400, 401, 403, 404, 409, 503),
)
async def finish_provider(  # one for each parameter of RFC 6749 and RFC 9207
    request: Request,
    provider: ProviderId,
    house: TheHouse,
    state: Annotated[str, Query(max_length=64)],
    code: Annotated[str | None, Query(max_length=4096)] = None,
    iss: Annotated[str | None, Query(max_length=1024)] = None,
    error: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Where a provider sends the browser back to; goes on to where the browser wanted to be."""
    visitor = visitor_of(request, house.entrance, "cookie")
    signed_in = await maybe_signed_in(request, house.entrance)
    arrival = await sign_in.finish_provider(
        house, provider, state, Answer(code, iss, error), visitor, signed_in
    )
    response = RedirectResponse(arrival.next or "/sign-in", 303)
    response.headers.update({"referrer-policy": "no-referrer", "cache-control": "no-store"})
    if arrival.session is not None:
        give_session(response, house.entrance, arrival.session)
    return response


@router.post("/sign-out", status_code=204, responses=documented(400, 401, 403))
async def sign_out(response: Response, house: TheHouse, signed_in: TheSignedIn) -> None:
    """End the session that asks."""
    await sign_in.sign_out(house, signed_in)
    take_session(response, house.entrance)
