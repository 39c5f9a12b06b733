"""The one interface between what people ask for and whatever runs the model.

Services and doors know this module of the model column and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeAlias

from transom.backends.activity import Activity
from transom.backends.admission import Admission
from transom.schema.deployment import Deployment, ServedModel
from transom.schema.dimensions import Dimensions
from transom.schema.generation import Delta, SequenceRequest
from transom.schema.program import ModelPoint, Program, Traced

Announce: TypeAlias = Callable[[Deployment], Awaitable[None]]
"""Told of a deployment before it answers anything."""


class Tokenizer(Protocol):
    """Text to token ids and back. Safe to call from any thread; holds no state between calls."""

    @property
    def has_chat_template(self) -> bool:
        """Whether `render` can work."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of rows of the output matrix: valid ids are below it."""
        ...

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Tokens that end a sequence."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`."""
        ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text of token ids; incomplete UTF-8 becomes U+FFFD."""
        ...

    def token_text(self, token_id: int) -> str:
        r"""Spelling of one token on its own; bytes that are no UTF-8 are spelled `bytes:\xe2\x80`."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that the token stands for."""
        ...

    def render(self, messages: Sequence[dict[str, Any]]) -> str:
        """The prompt text of a conversation, up to where the assistant's answer begins.

        Raises:
            InvalidRequest: the template refuses these messages.
        """
        ...

    def info(self) -> dict[str, Any]:
        """What `/tokenizer_info` answers."""
        ...


class Backend(Protocol):
    """One deployment, being served.

    Promises: the deltas of a sequence are a function of the deployment and the `SequenceRequest` alone,
    to the bit. They arrive in order, the last one carries a finish reason, and each sequence ends exactly
    once, or raises. Closing the iterator early aborts the sequence.
    """

    @property
    def served(self) -> ServedModel:
        """Name and deployment."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of this deployment."""
        ...

    @property
    def hidden_size(self) -> int:
        """Width of the hidden rows: the number of columns of the output matrix."""
        ...

    @property
    def points(self) -> Sequence[ModelPoint]:
        """What can be read and written inside, in the order in which a forward comes by."""
        ...

    @property
    def dimensions(self) -> Dimensions:
        """How large the model is; known once `served` is."""
        ...

    @property
    def ready(self) -> bool:
        """Whether a request would be taken now."""
        ...

    @property
    def max_sequences(self) -> int:
        """Most sequences that one request can start here; `admit` never has room for more."""
        ...

    @property
    def activity(self) -> Activity:
        """What it does now, and has done since the server started."""
        ...

    async def start(self, announce: Announce | None = None) -> None:
        """Load the model and prove it.

        Args:
            announce: awaited with the deployment before anything is answered.

        Raises:
            ModelRefused: the model cannot be served exactly.
        """
        ...

    async def stop(self) -> None:
        """End the sequences in flight and give every resource back."""
        ...

    def admit(self, project: str, sequences: int) -> Admission:
        """Hold room for all sequences of one request of a project, or for none.

        Whoever asks says when each sequence has come to its end, and closes the admission in any case.

        Raises:
            EngineBusy: too many sequences wait, or too many of this project.
            EngineUnavailable: nothing can be taken now.
        """
        ...

    def generate(self, request: SequenceRequest) -> AsyncGenerator[Delta, None]:
        """Continue one prompt; there is room for it, because it was admitted.

        Raises:
            EngineUnavailable: it was not taken, or could not be finished; the same request may pass later.
            GenerationFailed: it cannot be answered; others were not touched.
        """
        ...

    async def trace(self, program: Program) -> Traced:
        """Carry a program out, whose runs have room because they were admitted.

        Promises: what is in the file is a function of the deployment and the program alone, to the bit.

        Raises:
            PlanFailed: it cannot be carried out on the values that it met.
            EngineUnavailable: it was not taken, or could not be finished; the same may pass later.
            GenerationFailed: it kills engines.
        """
        ...
