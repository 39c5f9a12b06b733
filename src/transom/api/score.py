"""`POST /v1/score`."""

from __future__ import annotations

import math
from typing import Any

from fastapi import APIRouter, Request, Response

from transom.api import reply, shapes
from transom.api.body import AskRoute
from transom.api.dependencies import PathName, RawBody, TheCaller, TheHouse, for_model
from transom.api.errors import documented
from transom.backends.base import Tokenizer
from transom.schema.generation import TokenLogprob, Verdict
from transom.schema.measures import Measures
from transom.schema.scoring import ScoreRequest
from transom.services.answering import scoring
from transom.services.answering.scoring import Scoring

_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Every token of every answer, as the model predicts it",
        "headers": {
            "x-transom-record": {
                "description": "Id of the answer's record",
                "required": True,
                "schema": {"type": "string"},
            }
        },
        "content": {
            "application/json": {"schema": {"type": "object", "required": ["id", "object", "items"]}}
        },
    }
}

router = APIRouter(route_class=AskRoute, tags=["Records"])


@router.post("/score", responses=_ANSWER | documented(400, 401, 403, 404, 413, 415, 500, 503))
async def create_score(
    request: Request, house: TheHouse, caller: TheCaller, name: PathName, body: ScoreRequest, raw: RawBody
) -> Response:
    """Score answers from anywhere, and with a seed tell whether the model would have drawn them."""
    body = for_model(body, name)
    scored = await scoring.score(house, caller, body, raw)
    return await reply.whole(request, scored.generation, lambda: _whole(scored))


def _whole(scored: Scoring) -> dict[str, Any]:
    order = scored.generation.order
    items = [
        _item(order.backend.tokenizer, index, result.tokens, order.sampling.prompt_measures)
        for index, result in enumerate(scored.answers)
    ]
    total = sum(map(len, order.prompts))
    usage = {"prompt_tokens": total, "completion_tokens": 0, "total_tokens": total}
    return shapes.envelope(scored.generation, "score") | {"items": items, "usage": usage}


def _item(
    tokenizer: Tokenizer, index: int, tokens: list[TokenLogprob], measures: Measures | None
) -> dict[str, Any]:
    said: dict[str, Any] = {
        "index": index,
        "logprob": math.fsum(token.logprob for token in tokens),
        "tokens": [_token(tokenizer, token, measures) for token in tokens],
    }
    verdicts = [token.verdict for token in tokens if token.verdict is not None]
    if verdicts:
        said["differing"] = sum(token.drawn != token.token_id for token in tokens)
        said["would_be_drawn"] = said["differing"] == 0
    return said


def _token(tokenizer: Tokenizer, token: TokenLogprob, measures: Measures | None) -> dict[str, Any]:
    said: dict[str, Any] = {
        **_named(tokenizer, token.token_id),
        "logprob": token.logprob,
        "rank": token.rank,
        "top_logprobs": [_named(tokenizer, i) | {"logprob": logprob} for i, logprob in token.top],
    }
    if measures is not None:
        said["measures"] = dict(zip(measures.names, token.values(measures), strict=True))
    return said if token.verdict is None else said | _verdict(tokenizer, token.verdict)


def _verdict(tokenizer: Tokenizer, verdict: Verdict) -> dict[str, Any]:
    """JSON has no infinity: null is the margin of a token that a filter removed."""
    margin = verdict.margin if math.isfinite(verdict.margin) else None
    return {"drawn": _named(tokenizer, verdict.token_id), "margin": margin}


def _named(tokenizer: Tokenizer, token_id: int) -> dict[str, Any]:
    return {"token_id": token_id, "token": tokenizer.token_text(token_id)}
