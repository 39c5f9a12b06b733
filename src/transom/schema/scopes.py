"""The one table of scopes: what a grant can allow, and what each costs in openness about the weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True, slots=True)
class Scope:
    """One capability."""

    name: str
    allows: str
    exposes: str
    default_tier: str
    """The lowest tier that has it unless the programme says otherwise: `open`, `research` or `extended`."""


SCOPES: dict[str, Scope] = {
    scope.name: scope
    for scope in (
        Scope(
            "model:sample",
            "Ask for completions and chat, with a seed, penalties and stops; tokenize.",
            "Text of the model's choosing.",
            "open",
        ),
        Scope(
            "model:logprobs",
            "`logprobs` and `top_logprobs`: the chosen token's logprob, and the likeliest tokens beside it. "
            "`measures`: entropy, rank, surprisal, divergence and mass, over the whole vocabulary.",
            "A few numbers of each distribution, which together say a little about the output matrix.",
            "open",
        ),
        Scope(
            "model:score",
            "`echo`, `prompt_logprobs`, `prompt_measures`: the same of a text that the model did not write. "
            "`/v1/score`; with a seed it needs `model:sample` too.",
            "As `model:logprobs`, for any text.",
            "open",
        ),
        Scope(
            "model:bias",
            "`logit_bias`: push single tokens up or down.",
            "With logprobs, surprisal or divergence, the logit of any token: whole distributions in pieces, "
            "metered as such.",
            "research",
        ),
        Scope(
            "model:distributions",
            "`distributions` and `prompt_distributions`: the logprobs of the whole vocabulary.",
            "Each is a vector about the output matrix; as many as the hidden size give it away.",
            "extended",
        ),
        Scope(
            "internals:read",
            "`read` in plans: activations, attention patterns and the logit lens, at named points.",
            "What the model computes on chosen inputs, metered in bytes. Both sides of a linear layer, for "
            "as many inputs as it is wide, would give its matrix away; what is told of both is bounded.",
            "extended",
        ),
        Scope(
            "internals:write",
            "`write` in plans, completions and chat: set, add to, ablate, steer or take over activations "
            "while the model runs.",
            "With reads, chosen inputs to any part of the model.",
            "extended",
        ),
        Scope(
            "internals:grad",
            "`grad` in plans: how a prediction depends on what the model computes inside.",
            "Products of a model's matrices, metered and bounded as reads are.",
            "extended",
        ),
        Scope(
            "records:read",
            "List and read the project's own records.",
            "Nothing about the weights.",
            "open",
        ),
        Scope(
            "records:replay",
            "Run a record again on the server, and learn where it differs.",
            "Nothing that the record did not hold.",
            "open",
        ),
    )
}
"""Every scope, by its name. Documentation, the description of the API, `GET /v1/scopes` and what reviewers
read are made from it."""

ALL_SCOPES = frozenset(SCOPES)


class ScopeView(BaseModel):
    """A scope, as `GET /v1/scopes` shows it."""

    model_config = ConfigDict(frozen=True)

    name: str
    allows: str = Field(description="What a key with this scope may do")
    exposes: str = Field(description="What its answers say about the weights")
    default_tier: str = Field(description="The lowest tier that has it unless the programme says otherwise")

    @classmethod
    def of(cls, scope: Scope) -> ScopeView:
        """The view of one row."""
        return cls(
            name=scope.name,
            allows=scope.allows,
            exposes=scope.exposes,
            default_tier=scope.default_tier,
        )


def unknown_scopes(names: Iterable[str]) -> list[str]:
    """Those of `names` that are no scopes, sorted."""
    return sorted(set(names) - ALL_SCOPES)
