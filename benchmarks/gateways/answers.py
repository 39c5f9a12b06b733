"""What the upstream of a gateway answers: the same few words, whole or in chunks."""

from __future__ import annotations

import json
from itertools import cycle, islice
from typing import Any

MODEL = "instant"
CHUNKS = 128
"""Pieces of a streamed answer."""
PAUSE = 0.01
"""Seconds between two pieces: each travels alone, as from an engine, and no gateway is near its limit."""
SPOKEN = ("word ", "more ")
"""What a streamed answer says, in turn: LiteLLM ends a stream in which a chunk comes a hundred times."""
WORDS = ("Blue", ",", " mostly", ".")
"""A whole answer, a token each."""

_ENVELOPE: dict[str, Any] = {"id": "chatcmpl-0", "created": 1_700_000_000, "model": MODEL}


def whole() -> bytes:
    """The body of a reply that is no stream."""
    message = {"role": "assistant", "content": "".join(WORDS), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 11, "completion_tokens": len(WORDS), "total_tokens": 11 + len(WORDS)}
    return json.dumps(_ENVELOPE | {"object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def events() -> list[bytes]:
    """The events of a stream: `CHUNKS` with text, the ending, and `[DONE]`."""
    deltas: list[dict[str, Any]] = [{"content": word} for word in islice(cycle(SPOKEN), CHUNKS)]
    deltas[0]["role"] = "assistant"
    chunks = [_chunk(delta, None) for delta in deltas] + [_chunk({}, "stop")]
    return [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks] + [b"data: [DONE]\n\n"]


def _chunk(delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return _ENVELOPE | {"object": "chat.completion.chunk", "choices": [choice]}


def question(*, stream: bool) -> dict[str, Any]:
    """The body of a request."""
    messages = [{"role": "user", "content": "Which colour is the sky?"}]
    body = {"model": MODEL, "messages": messages, "max_tokens": CHUNKS if stream else len(WORDS)}
    return body | {"stream": True} if stream else body
