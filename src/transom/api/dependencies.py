"""What a route asks of the server and of the request."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Path, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from transom.access.callers import Caller
from transom.errors import InvalidRequest, Unauthenticated
from transom.schema.wire import Body
from transom.services.house import House

_bearer = HTTPBearer(auto_error=False, description="A Transom key: `tr_…`")

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
    if not hasattr(request.state, "caller"):
        scheme, _, key = request.headers.get("authorization", "").strip().partition(" ")
        if scheme and scheme.lower() != "bearer":
            raise Unauthenticated("The Authorization header is not of the form `Bearer tr_…`.")
        request.state.caller = await get_house(request).keys.authenticate(key.strip() or None)
    caller: Caller = request.state.caller
    return caller


async def get_caller(request: Request, _documented: Annotated[object, Depends(_bearer)]) -> Caller:
    """`caller_of`, for routes."""
    return await caller_of(request)


async def refuse_unknown_query(request: Request) -> None:
    """`refuse_query` of what the route does not know."""
    if request.scope["query_string"]:
        route: APIRoute = request.scope["route"]
        refuse_query(request, {field.alias for field in route.dependant.query_params})


def refuse_query(request: Request, known: Collection[str] = ()) -> None:
    """A query parameter that is not known is refused, as an unknown field of a body is."""
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
TheCaller = Annotated[Caller, Depends(get_caller)]
RawBody = Annotated[dict[str, Any], Depends(raw_body)]
PathName = Annotated[str | None, Depends(path_name)]
RecordId = Annotated[str, Path(alias="id", description="A record's id, `rec_…`")]
