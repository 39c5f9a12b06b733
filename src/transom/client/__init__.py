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
    Tokens,
    Usage,
)
from transom.client.verify import verify_record

__all__ = [
    "AsyncClient",
    "Chat",
    "ChatChunk",
    "Client",
    "Completion",
    "CompletionChunk",
    "Distribution",
    "MeasuredToken",
    "Model",
    "RateLimited",
    "Scored",
    "ServerUnreachable",
    "Tensor",
    "Tokens",
    "Traced",
    "UnexpectedReply",
    "Usage",
    "verify_record",
]
