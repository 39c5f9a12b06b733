"""`GET /v1/models`: what is served here, and as which deployment."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from transom.api.dependencies import PathName, TheHouse, get_caller, one_model
from transom.api.errors import documented
from transom.schema.deployment import ServedModel

router = APIRouter(tags=["OpenAI"], dependencies=[Depends(get_caller)])

_RESPONSES = documented(400, 401, 404, 503)


@router.get("/models", responses=_RESPONSES)
async def list_models(house: TheHouse, name: PathName) -> dict[str, Any]:
    """Every model that is up; below `/models/{name}`, that one."""
    served = [house.backend(name).served] if name else house.served()
    return {"object": "list", "data": [_shape(each) for each in served]}


@router.get("/models/{model}", responses=_RESPONSES)
async def get_model(model: str, house: TheHouse, name: PathName) -> dict[str, Any]:
    """One model."""
    return _shape(house.backend(one_model(name, model)).served)


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
