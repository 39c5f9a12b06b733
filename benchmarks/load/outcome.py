"""What a reply says: when its tokens came, how many there were, and what was wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.load.sse import DONE, Event, read_events
from benchmarks.load.wire import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One request as its client saw it. Moments are seconds of `time.perf_counter`."""

    started: float
    ended: float
    token_times: tuple[float, ...] = ()
    """When each event that carries a token came; empty where the reply was no stream."""
    prompt_tokens: int = 0
    output_tokens: int = 0
    problem: str | None = None

    @property
    def first_token_seconds(self) -> float | None:
        """Time to the first token."""
        return self.token_times[0] - self.started if self.token_times else None

    @property
    def gaps(self) -> list[float]:
        """Seconds between each event with a token and the next."""
        return [late - early for early, late in zip(self.token_times, self.token_times[1:], strict=False)]


def read_stream(reply: Reply, *, strict: bool = False) -> Outcome:
    """Read a streamed reply. Tokens are counted by its `usage`, else by its events.

    Args:
        reply: what came.
        strict: whether a stream must end with `[DONE]`; else it may end with a finish reason.
    """
    if (problem := _refusal(reply)) is not None:
        return Outcome(started=reply.started, ended=reply.ended, problem=problem)
    times: list[float] = []
    usage: dict[str, Any] = {}
    ended = False
    for event in read_events(reply.parts):
        if event.data == DONE:
            ended = True
            continue
        try:
            chunk = event.json()
        except ValueError:
            problem = "an event is not JSON"
            continue
        problem = problem or _error_in(event, chunk)
        usage = chunk.get("usage") or usage
        if _carries_token(chunk):
            times.append(event.at)
        ended = ended or (not strict and _is_ending(chunk))
    if not ended:
        problem = problem or "the stream broke off"
    return Outcome(
        started=reply.started,
        ended=reply.ended,
        token_times=tuple(times),
        prompt_tokens=usage.get("prompt_tokens", 0),
        output_tokens=usage.get("completion_tokens", len(times)),
        problem=problem,
    )


def read_whole(reply: Reply) -> Outcome:
    """Read a reply that is no stream."""
    problem = _refusal(reply)
    usage: dict[str, Any] = {}
    if problem is None:
        try:
            usage = reply.json().get("usage") or {}
        except ValueError:
            problem = "the body is not JSON"
    return Outcome(
        started=reply.started,
        ended=reply.ended,
        prompt_tokens=usage.get("prompt_tokens", 0),
        output_tokens=usage.get("completion_tokens", 0),
        problem=problem,
    )


def _refusal(reply: Reply) -> str | None:
    if reply.problem is not None:
        return reply.problem
    if reply.status == 200:
        return None
    return f"status {reply.status}: {reply.body[:300].decode(errors='replace')}"


def _error_in(event: Event, chunk: dict[str, Any]) -> str | None:
    if event.kind == "error" or "error" in chunk:
        return f"the stream has an error: {event.data[:300].decode(errors='replace')}"
    return None


def _is_ending(chunk: dict[str, Any]) -> bool:
    return any(choice.get("finish_reason") for choice in chunk.get("choices") or ())


def _carries_token(chunk: dict[str, Any]) -> bool:
    """Whether a chunk brings a token: text, or nothing yet of a character, but not the bare ending."""
    for choice in chunk.get("choices") or ():
        delta = choice.get("delta")
        text = choice.get("text") if delta is None else delta.get("content")
        opening = delta is not None and "role" in delta
        if text or (text is not None and choice.get("finish_reason") is None and not opening):
            return True
    return False
