"""What the server and the engine process say to each other: frames of MessagePack, both ways.

Nothing here needs torch. A frame is one message; the pipe keeps order. The engine never waits for the
server, and every sequence that was submitted ends with one `Output` that has a finish reason.
"""

from __future__ import annotations

import msgspec

from transom.schema.dimensions import Dimensions
from transom.schema.generation import FinishReason, SequenceRequest, TokenLogprob
from transom.schema.program import ModelPoint, Program, Traced


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine process is to run; its only argument, as JSON."""

    root: str
    """Folder of the model root."""
    eos_token_ids: tuple[int, ...] = ()
    """Tokens that end a sequence, as the tokenizer's files say."""
    dtype: str = "float32"
    device: str = "cpu"
    """As torch names it; ours are the kernels of \"cpu\" only."""
    processor: str = "host"
    """That of the machine, or one that has no more than a level names. See `processor`."""
    threads: int = 0
    """0 for one each core."""
    cache_bytes: int = 2 << 30
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 0
    """0 for what suits the device."""
    prefix_caching: bool = True
    max_model_len: int = 0
    """0 for what the model declares."""
    gradient_bytes: int = 4 << 30
    """Most memory that a gradient may take, the model itself not counted."""


class Submit(msgspec.Struct, tag=True, frozen=True):
    """Take a sequence; `generated` are tokens that it already has, from before the engine was restarted."""

    request: SequenceRequest
    generated: tuple[int, ...] = ()


class Abort(msgspec.Struct, tag=True, frozen=True):
    """Nobody waits for this sequence any more. No output follows."""

    sequence_id: str


class SubmitProgram(msgspec.Struct, tag=True, frozen=True):
    """Carry a program out. One `Ended` follows, unless it is aborted."""

    program: Program


class Written(msgspec.Struct, tag=True, frozen=True):
    """The engine's own word to itself: the file of a program is there."""

    traced: Traced


class Differentiated(msgspec.Struct, tag=True, frozen=True):
    """The engine's own word to itself: the gradients of a run are there, or why not."""

    trace_id: str
    run: str
    error: str | None = None


Inbound = Submit | Abort | SubmitProgram | Written | Differentiated


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The model is loaded and proven."""

    profile: dict[str, str]
    max_model_len: int
    dimensions: Dimensions
    points: list[ModelPoint] = []


class Refused(msgspec.Struct, tag=True, frozen=True):
    """The model cannot be served exactly; the process ends."""

    reason: str


class Output(msgspec.Struct, frozen=True):
    """News of one sequence."""

    sequence_id: str
    tokens: list[TokenLogprob] = []
    prompt_logprobs: list[TokenLogprob | None] | None = None
    finish_reason: FinishReason | None = None
    stop_token: int | None = None
    error: str | None = None
    param: str | None = None
    """The field of the request that the error is about."""


class Outputs(msgspec.Struct, tag=True, frozen=True):
    """News of every sequence that one step moved."""

    outputs: list[Output]


class Ended(msgspec.Struct, tag=True, frozen=True):
    """A program came to its end."""

    traced: Traced


class Stats(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """The engine's counters since it started, and its state now.

    Sent by the step loop itself a few times a second while it steps, and once when it falls idle, so that
    silence with work to do means that it hangs.
    """

    waiting: int = 0
    """Sequences that hold no pages."""
    running: int = 0
    pages: int = 0
    """Pages of the cache, the scratch page aside."""
    pages_used: int = 0
    """Pages that a sequence holds."""
    pages_cached: int = 0
    """Pages that no sequence holds and whose contents may be used again."""
    steps: int = 0
    step_seconds: float = 0.0
    """Time spent in steps."""
    batch_sequences: int = 0
    """Sum over steps of the sequences in the batch."""
    batch_tokens: int = 0
    """Sum over steps of the rows in the batch."""
    layer_rows: int = 0
    """Sum over steps of the layers that each row went through; one that came in at a layer has fewer."""
    prefill_tokens: int = 0
    decode_tokens: int = 0
    scored_tokens: int = 0
    prefix_queries: int = 0
    """Prompt tokens looked up in the prefix cache."""
    prefix_hits: int = 0
    """Prompt tokens found there, which were not computed again."""
    preemptions: int = 0


Outbound = Ready | Refused | Outputs | Ended | Stats

_encoder = msgspec.msgpack.Encoder()
_inbound = msgspec.msgpack.Decoder(Inbound)
_outbound = msgspec.msgpack.Decoder(Outbound)


def encode(message: Inbound | Outbound) -> bytes:
    """One frame."""
    return _encoder.encode(message)


def decode_inbound(frame: bytes) -> Inbound:
    """What the server sent."""
    message: Inbound = _inbound.decode(frame)
    return message


def decode_outbound(frame: bytes) -> Outbound:
    """What the engine sent."""
    message: Outbound = _outbound.decode(frame)
    return message
