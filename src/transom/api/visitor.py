"""What a request says of who sends it and where from: cookies, bearer tokens, and the marks of forgery."""

from __future__ import annotations

import re
import secrets

from fastapi import Request, Response

from transom.access.credentials.keys import SESSION
from transom.access.sign_in.entrance import Entrance, Visitor
from transom.access.sign_in.sessions import LIFETIME, Carrier, NewSession, SignedIn
from transom.errors import Forbidden, Unauthenticated

CSRF_HEADER = "x-transom-csrf"
"""Any value will do: a page of another site cannot send it without being allowed to, and none is."""

_SESSION_COOKIE = "transom_session"
_BROWSER_COOKIE = "transom_browser"
_BROWSER_SECONDS = 3600
_BROWSER_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def refuse_cross_site(request: Request, entrance: Entrance) -> None:
    """Refuse what a page of another site sent, by what browsers say of it (Fetch Metadata, and Origin).

    Raises:
        Forbidden: a browser says that it comes from elsewhere.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site not in {None, "same-origin"} or origin not in {None, entrance.origin.text}:
        raise _forged(f"This request comes from another site than {entrance.origin.text}.")


def refuse_without_header(request: Request) -> None:
    """Refuse what a browser may have been made to send.

    Raises:
        Forbidden: the header is missing that pages of this site add.
    """
    if not request.headers.get(CSRF_HEADER):
        raise _forged(f"Requests that use cookies need the header {CSRF_HEADER}: 1.")


async def signed_in_of(request: Request, entrance: Entrance) -> SignedIn:
    """Who sends a request: by a bearer token where there is one, else by the cookie.

    Raises:
        Unauthenticated: nobody who is signed in.
        Forbidden: a cookie came along with what another site may have sent.
    """
    if not hasattr(request.state, "signed_in"):
        header = request.headers.get("authorization")
        if header is not None:
            request.state.signed_in = await entrance.sessions.resolve(_bearer(header), "token")
        else:
            request.state.signed_in = await _by_cookie(request, entrance)
    signed_in: SignedIn = request.state.signed_in
    return signed_in


async def maybe_signed_in(request: Request, entrance: Entrance) -> SignedIn | None:
    """Who sends a request, or None."""
    try:
        return await signed_in_of(request, entrance)
    except Unauthenticated:
        return None


def visitor_of(request: Request, entrance: Entrance, carrier: Carrier) -> Visitor:
    """Where a request comes from, as far as signing in is concerned.

    Raises:
        Forbidden: a session in a cookie is wanted, by what another site may have sent.
    """
    if carrier == "cookie" and request.method not in _SAFE:
        refuse_without_header(request)
    cookie = request.cookies.get(_name(entrance, _SESSION_COOKIE))
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return Visitor(
        carrier=carrier,
        browser=_browser(request, entrance) if carrier == "cookie" else None,
        brought=cookie if carrier == "cookie" else token.strip() if scheme.lower() == "bearer" else None,
        address=request.client.host if request.client else None,
        agent=request.headers.get("user-agent", ""),
    )


def bound_visitor(request: Request, response: Response, entrance: Entrance, carrier: Carrier) -> Visitor:
    """`visitor_of`, with a cookie that binds to this browser what is about to begin.

    A browser keeps the secret that it has, so that what it began before stays good; it opens nothing.
    """
    visitor = visitor_of(request, entrance, carrier)
    if carrier == "token":
        return visitor
    secret = visitor.browser or secrets.token_urlsafe(32)
    _set(response, entrance, _BROWSER_COOKIE, secret, _BROWSER_SECONDS)
    return Visitor(
        carrier=carrier,
        browser=secret,
        brought=visitor.brought,
        address=visitor.address,
        agent=visitor.agent,
    )


def give_session(response: Response, entrance: Entrance, new: NewSession) -> None:
    """Put a new session into its cookie, if that is how it travels."""
    if new.session.carrier == "cookie":
        _set(response, entrance, _SESSION_COOKIE, new.text, int(LIFETIME.total_seconds()))


def take_session(response: Response, entrance: Entrance) -> None:
    """Have the browser forget its session."""
    _set(response, entrance, _SESSION_COOKIE, "", 0)


async def _by_cookie(request: Request, entrance: Entrance) -> SignedIn:
    text = request.cookies.get(_name(entrance, _SESSION_COOKIE))
    if not text:
        raise Unauthenticated(
            "Nobody is signed in: sign in, or send a session as `Authorization: Bearer ts_…`.",
            code=SESSION.code,
        )
    if request.method not in _SAFE:
        refuse_cross_site(request, entrance)
        refuse_without_header(request)
    return await entrance.sessions.resolve(text, "cookie")


def _bearer(header: str) -> str:
    scheme, _, text = header.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("The Authorization header is not of the form `Bearer ts_…`.", code=SESSION.code)
    if text.strip().startswith("tr_"):
        raise Unauthenticated(
            "This needs a person who is signed in, and an API key is none: send a session, `ts_…`.",
            code=SESSION.code,
        )
    return text.strip()


def _browser(request: Request, entrance: Entrance) -> str | None:
    secret = request.cookies.get(_name(entrance, _BROWSER_COOKIE), "")
    return secret if _BROWSER_SECRET.fullmatch(secret) else None


def _name(entrance: Entrance, name: str) -> str:
    """With HTTPS, the name that browsers take from this very host alone (RFC 6265bis, 4.1.3.2)."""
    return f"__Host-{name}" if entrance.origin.secure else name


def _set(response: Response, entrance: Entrance, name: str, value: str, seconds: int) -> None:
    response.set_cookie(
        _name(entrance, name),
        value,
        max_age=seconds,
        path="/",
        secure=entrance.origin.secure,
        httponly=True,
        samesite="lax",
    )


def _forged(message: str) -> Forbidden:
    return Forbidden(message, code="cross_site_request")
