"""`GET /v1/models`: what is served here, and as which deployment."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from transom.api.dependencies import PathName, TheHouse, get_caller
from transom.api.errors import documented
from transom.schema.deployment import ServedModel

router = APIRouter(tags=["OpenAI"], dependencies=[Depends(get_caller)])

_RESPONSES = documented(401, 404, 503)


@router.get("/models", responses=_RESPONSES)
async def list_models(house: TheHouse, name: PathName) -> dict[str, Any]:
    """Every model served here; below `/models/{name}`, that one."""
    names = [name] if name else sorted(house.backends)
    return {"object": "list", "data": [_shape(house.backend(each).served) for each in names]}


@router.get("/models/{model}", responses=_RESPONSES)
async def get_model(model: str, house: TheHouse) -> dict[str, Any]:
    """One model."""
    return _shape(house.backend(model).served)


def _shape(served: ServedModel) -> dict[str, Any]:
    deployment = served.deployment
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "operator",
        "max_model_len": deployment.policy.max_model_len,
        "digest": deployment.digest,
        "deployment": deployment.model_dump(mode="json"),
    }
