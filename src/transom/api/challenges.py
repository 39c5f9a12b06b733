"""`/v1/challenges` and `/v1/transparency`: what is replayed in public, and how the operator stands."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from transom.api.dependencies import TheHouse
from transom.api.errors import documented
from transom.schema.challenges import ChallengePage, ChallengeView, Transparency
from transom.schema.randomness import DIGEST
from transom.services.evidence import challenges

router = APIRouter(tags=["Log"])


@router.post("/challenges/{index}", responses=documented(400, 404, 429))
async def ask_for_challenge(
    index: Annotated[int, Path(description="Of an entry of the log")], house: TheHouse
) -> ChallengeView:
    """Have a record replayed, whosever it is: what comes of it is an entry of the log within a day.

    A challenge of the same entry that is still open is answered again.
    """
    return await challenges.ask(house, index)


@router.get("/challenges")
async def list_challenges(house: TheHouse) -> ChallengePage:
    """The newest challenges; `/log/documents/` and a digest shows a challenge or a verdict whole."""
    return await challenges.page(house)


@router.get("/challenges/{digest}", responses=documented(400, 404))
async def get_challenge(
    digest: Annotated[str, Path(description="Of the challenge's document", pattern=DIGEST)], house: TheHouse
) -> ChallengeView:
    """One challenge."""
    return await challenges.find(house, digest)


@router.get("/transparency")
async def get_transparency(house: TheHouse) -> Transparency:
    """How the log stands, what answers now, and which challenges were met."""
    return await challenges.transparency(house)
