"""What a route asks of the server and of the request."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Path, Query, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import APIKeyCookie, HTTPBearer

from transom.access.keys.callers import Caller
from transom.access.people.persons import PersonCaller
from transom.access.sign_in.sessions import SignedIn
from transom.api import visitor
from transom.errors import InvalidRequest, Unauthenticated
from transom.schema.projects import Id
from transom.schema.wire import Body
from transom.services.house import House
from transom.services.office import Office

_bearer = HTTPBearer(auto_error=False, description="A Transom key: `tr_…`")
_session = HTTPBearer(auto_error=False, scheme_name="Session", description="A session of a person: `ts_…`")
_cookie = APIKeyCookie(
    auto_error=False,
    scheme_name="SessionCookie",
    name="__Host-transom_session",
    description="A session in a browser; whatever changes something needs the header `x-transom-csrf` too",
)

B = TypeVar("B", bound=Body)


# FastAPI sends dependencies that are not coroutines to a thread, which costs more than all that these do.


async def the_house(request: Request) -> House:
    """`get_house`, for routes."""
    return get_house(request)


def get_house(request: Request) -> House:
    """The house that `transom.app` put together."""
    house: House = request.app.state.house
    return house


async def caller_of(request: Request) -> Caller:
    """The caller behind the key in the Authorization header; looked up once for each request."""
    state: dict[str, Any] = request.scope.setdefault("state", {})
    caller: Caller | None = state.get("caller")
    if caller is None:
        scheme, _, key = request.headers.get("authorization", "").strip().partition(" ")
        if scheme and scheme.lower() != "bearer":
            raise Unauthenticated("The Authorization header is not of the form `Bearer tr_…`.")
        caller = state["caller"] = await get_house(request).keys.authenticate(key.strip() or None)
    return caller


async def get_caller(request: Request, _documented: Annotated[object, Depends(_bearer)]) -> Caller:
    """`caller_of`, for routes."""
    return await caller_of(request)


async def signed_in_of(request: Request) -> SignedIn:
    """The person behind the session of a request, and the session; looked up once for each request."""
    return await visitor.signed_in_of(request, get_house(request).entrance)


async def get_signed_in(
    request: Request,
    _token: Annotated[object, Depends(_session)],
    _documented: Annotated[object, Depends(_cookie)],
) -> SignedIn:
    """`signed_in_of`, for routes."""
    return await signed_in_of(request)


async def person_of(request: Request) -> PersonCaller:
    """The person who is signed in, as the rest of the server knows them."""
    person = (await signed_in_of(request)).person
    return PersonCaller(person.id, frozenset(person.roles))


async def get_person(
    request: Request,
    _token: Annotated[object, Depends(_session)],
    _documented: Annotated[object, Depends(_cookie)],
) -> PersonCaller:
    """`person_of`, for routes."""
    return await person_of(request)


async def get_office(request: Request) -> Office:
    """The office that `transom.app` put together."""
    return get_house(request).office


async def no_store(response: Response) -> None:
    """Keep what is somebody's own out of every cache."""
    response.headers["cache-control"] = "no-store"


async def refuse_unknown_query(request: Request) -> None:
    """`refuse_query` of what the route does not know."""
    route: APIRoute = request.scope["route"]
    refuse_query(request, {field.alias for field in route.dependant.query_params})


def refuse_query(request: Request, known: Collection[str] = ()) -> None:
    """A query parameter that is not known is refused, as an unknown field of a body is."""
    if not request.scope["query_string"]:
        return
    for name in request.query_params:
        if name not in known:
            raise InvalidRequest(
                f"{name[:100]} is not a parameter of this endpoint; remove it.",
                param=name[:100],
                code="unknown_parameter",
            )


def for_model(body: B, name: str | None) -> B:
    """The body, with the model of the path `/models/{name}/…` where there is one.

    Raises:
        InvalidRequest: body and path name different models.
    """
    if name is None:
        return body
    return body.model_copy(update={"model": one_model(name, getattr(body, "model", None))})


def one_model(path: str | None, given: str | None) -> str | None:
    """The model that the path or the rest of the request names.

    Raises:
        InvalidRequest: they name different models.
    """
    if path is not None and given not in (None, path):
        raise InvalidRequest(
            f"The path names {path[:100]!r} and the request {given[:100]!r}; name one.", param="model"
        )
    return path or given


async def raw_body(request: Request) -> dict[str, Any]:
    """The body as it came, for the record."""
    data: dict[str, Any] = await request.json()
    return data


async def path_name(request: Request) -> str | None:
    """`model_in_path`, for routes."""
    return model_in_path(request)


def model_in_path(request: Request) -> str | None:
    """The model that the path names, below `/models/{name}`."""
    return request.path_params.get("name")


async def check_path(
    house: Annotated[House, Depends(the_house)],
    _caller: Annotated[Caller, Depends(get_caller)],
    name: Annotated[str | None, Depends(path_name)],
) -> None:
    """Refuse a path below a model that is not served here, whatever it leads to."""
    house.backend(name)


TheHouse = Annotated[House, Depends(the_house)]
TheOffice = Annotated[Office, Depends(get_office)]
ThePerson = Annotated[PersonCaller, Depends(get_person)]
TheCaller = Annotated[Caller, Depends(get_caller)]
TheSignedIn = Annotated[SignedIn, Depends(get_signed_in)]
RawBody = Annotated[dict[str, Any], Depends(raw_body)]
PathName = Annotated[str | None, Depends(path_name)]
RecordId = Annotated[str, Path(alias="id", description="A record's id, `rec_…`")]
ProjectId = Annotated[Id, Path(alias="id", description="A project's id, `prj_…`")]
KeyId = Annotated[Id, Path(alias="id", description="A key's id: the middle of its text")]

After = Annotated[str | None, Query(max_length=100, description="Cursor that the page before ended with")]
"""Where a page of a list begins."""

Limit = Annotated[int, Query(ge=1, le=100)]
"""How long a page is."""
