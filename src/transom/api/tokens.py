"""`/tokenize`, `/detokenize` and `/tokenizer_info`, at the root as lm-eval and vLLM have them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from transom.api.body import JsonRoute
from transom.api.dependencies import PathName, TheHouse, for_model, get_caller, one_model
from transom.api.errors import documented
from transom.schema.tokens import DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse
from transom.services.answering import tokens

router = APIRouter(route_class=JsonRoute, tags=["Tokenizer"], dependencies=[Depends(get_caller)])

_RESPONSES = documented(400, 401, 404, 413, 415, 503)


@router.post("/tokenize", responses=_RESPONSES, response_model_exclude_none=True)
async def tokenize(house: TheHouse, name: PathName, body: TokenizeRequest) -> TokenizeResponse:
    """Text, or a conversation, to token ids."""
    return tokens.tokenize(house, for_model(body, name))


@router.post("/detokenize", responses=_RESPONSES)
async def detokenize(
    house: TheHouse,
    name: PathName,
    body: DetokenizeRequest,
) -> DetokenizeResponse:
    """Token ids to text."""
    return tokens.detokenize(house, for_model(body, name))


@router.get("/tokenizer_info", responses=_RESPONSES)
async def tokenizer_info(
    house: TheHouse,
    name: PathName,
    model: Annotated[str | None, Query(max_length=100)] = None,
) -> dict[str, Any]:
    """The tokenizer's class, special tokens and chat template; of the only model, where none is named."""
    return house.tokenizing(one_model(name, model)).tokenizer.info()
