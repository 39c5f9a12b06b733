"""What a researcher imports: ask, look at every token, read records, replay them. No server, no torch.

from transom import Client

with Client() as client:
    answer = client.chat("Why is the sky blue?", seed=7)
    print(answer.text, client.replay(answer.record).level)
"""

from __future__ import annotations

from transom.client.asynchronous import AsyncClient
from transom.client.failures import RateLimited, ServerUnreachable, UnexpectedReply
from transom.client.inside import Tensor, Traced
from transom.client.interp.datasets import Activations
from transom.client.interp.models import AsyncLanguageModel, LanguageModel
from transom.client.interp.patching import Patching
from transom.client.interp.reading import Lens
from transom.client.interp.steering import Steered
from transom.client.interp.traces import Metric, Trace, kl, logit_diff, logprob
from transom.client.interp.values import Value
from transom.client.synchronous import Client
from transom.client.types import (
    Chat,
    ChatChunk,
    Completion,
    CompletionChunk,
    Distribution,
    MeasuredToken,
    Model,
    Scored,
    ScoredAnswer,
    ScoredToken,
    Scores,
    Tokens,
    Usage,
)
from transom.client.verify import verify_record

__all__ = [
    "Activations",
    "AsyncClient",
    "AsyncLanguageModel",
    "Chat",
    "ChatChunk",
    "Client",
    "Completion",
    "CompletionChunk",
    "Distribution",
    "LanguageModel",
    "Lens",
    "MeasuredToken",
    "Metric",
    "Model",
    "Patching",
    "RateLimited",
    "Scored",
    "ScoredAnswer",
    "ScoredToken",
    "Scores",
    "ServerUnreachable",
    "Steered",
    "Tensor",
    "Tokens",
    "Trace",
    "Traced",
    "UnexpectedReply",
    "Usage",
    "Value",
    "kl",
    "logit_diff",
    "logprob",
    "verify_record",
]
