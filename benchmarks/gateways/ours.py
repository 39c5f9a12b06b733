"""Transom with everything on, around a backend that answers at once: `python -m … --port 8902 --home FOLDER`.

The backend is in the process, because a record needs the token ids of prompt and answer, which most upstreams
do not tell. Template and tokenizer are those of a real model; the key is written to FOLDER/key.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from itertools import cycle, islice
from pathlib import Path

from benchmarks.gateways.answers import CHUNKS, MODEL, PAUSE, SPOKEN, WORDS
from benchmarks.gateways.grant import make_key
from transom.app import create_app
from transom.backends.activity import Activity
from transom.backends.admission import Admission, WaitingRoom
from transom.backends.base import Announce
from transom.backends.tokenizer import LocalTokenizer
from transom.cli.logs import configure_logs
from transom.cli.server import Server
from transom.config import Settings
from transom.schema.deployment import Deployment, EngineProfile, ModelManifest, Policy, ServedModel
from transom.schema.dimensions import Dimensions
from transom.schema.generation import Delta, SequenceRequest, TokenLogprob
from transom.schema.program import ModelPoint, Program, Traced

_NONE = "none"


class InstantBackend:
    """Implements `transom.backends.base.Backend`: the same words to everybody, with made-up logprobs."""

    def __init__(self, tokenizer: LocalTokenizer) -> None:
        self.served = ServedModel(name=MODEL, deployment=_deployment(), created=1_700_000_000)
        self.tokenizer = tokenizer
        self.hidden_size = 1
        self.ready = False
        self.activity = Activity()
        self._room = WaitingRoom(MODEL, running=1024, waiting=1024)
        self._spoken = [self._delta(word) for word in SPOKEN]
        self._words = Delta(
            tokens=tuple(token for word in WORDS for token in self._delta(word).tokens),
            token_texts=WORDS,
            text="".join(WORDS),
            finish_reason="stop",
        )

    async def start(self, announce: Announce | None = None) -> None:
        """There is nothing to load."""
        if announce is not None:
            await announce(self.served.deployment)
        self.ready = True

    async def stop(self) -> None:
        """There is nothing to end."""
        self.ready = False

    @property
    def max_sequences(self) -> int:
        """As the room has it."""
        return self._room.share

    def admit(self, project: str, sequences: int) -> Admission:
        """As a real backend does."""
        return self._room.admit(project, sequences)

    @property
    def dimensions(self) -> Dimensions:
        """There is no model to have any."""
        raise NotImplementedError

    @property
    def points(self) -> Sequence[ModelPoint]:
        """There is no inside."""
        return ()

    async def trace(self, program: Program) -> Traced:
        """Nothing comes of it."""
        return Traced(trace_id=program.trace_id, error="this backend has no inside")

    async def generate(self, request: SequenceRequest) -> AsyncGenerator[Delta, None]:
        """All of a short answer at once; of a long one a word at a time, as the upstream streams it."""
        if request.sampling.max_tokens < CHUNKS:
            yield self._words
            return
        for word in islice(cycle(self._spoken), CHUNKS):
            yield word
            await asyncio.sleep(PAUSE)
        yield Delta(finish_reason="stop")

    def _delta(self, text: str) -> Delta:
        token_id = self.tokenizer.encode(text, add_special_tokens=False)[0]
        return Delta(tokens=(TokenLogprob(token_id, -0.5, 1),), token_texts=(text,), text=text)


def _deployment() -> Deployment:
    zeros = "sha256:" + "0" * 64
    model = ModelManifest(
        signing_statement={"subject": []},
        tensors_root=zeros,
        tensor_count=0,
        parameter_count=0,
        tokenizer=zeros,
        chat_template=None,
        architecture="Instant",
    )
    profile = EngineProfile(**dict.fromkeys(EngineProfile.model_fields, _NONE))
    return Deployment(model=model, profile=profile, policy=Policy(max_model_len=4096, max_top_logprobs=20))


def main(arguments: Sequence[str]) -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument(
        "--model-root", type=Path, required=True, help="whose template and tokenizer are used"
    )
    options = parser.parse_args(arguments)
    settings = Settings(home=options.home, port=options.port, log_level="warning")
    configure_logs(settings.log_level)
    backend = InstantBackend(LocalTokenizer(options.model_root))
    key = asyncio.run(make_key(settings, backend))
    (options.home / "key").write_text(key, encoding="utf-8")
    Server(settings, create_app(settings, backends={MODEL: backend})).run()


if __name__ == "__main__":
    main(sys.argv[1:])
