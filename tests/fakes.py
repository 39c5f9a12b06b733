"""A backend that makes its answers up, the same ones every time, and misbehaves on request."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, processors

from transom.backends.activity import Activity
from transom.backends.admission import Admission, WaitingRoom
from transom.backends.text import StopText
from transom.backends.tokenizer import LocalTokenizer
from transom.errors import EngineUnavailable, PlanFailed
from transom.internals.results import save
from transom.internals.values import Value
from transom.schema.changes import GLOBAL, Changes, WriteSpec
from transom.schema.deployment import Deployment, EngineProfile, ModelManifest, Policy, ServedModel
from transom.schema.dimensions import Dimensions
from transom.schema.generation import Delta, SamplingParams, SequenceRequest, TokenLogprob
from transom.schema.measures import Measured, Measures
from transom.schema.program import ModelPoint, Program, ReadSpec, Traced

MAX_MODEL_LEN = 256
CREATED = 1_700_000_000
HIDDEN_SIZE = 4096
POINTS = (
    ModelPoint(name="embeddings", layers=(GLOBAL,), heads=1, width=HIDDEN_SIZE),
    ModelPoint(name="resid_post", layers=(0, 1), heads=1, width=HIDDEN_SIZE),
    ModelPoint(name="z", layers=(0, 1), heads=4, width=16),
    ModelPoint(name="resid_mid", layers=(), heads=0, width=0, reason="the fake has nothing in its middle"),
)
DIMENSIONS = Dimensions(
    layers=2,
    width=HIDDEN_SIZE,
    vocabulary=384,
    weights=1000,
    attention=128,
    cached=64,
    enters=True,
    parameters=10_000,
    graph=None,
    gradient_bytes=1 << 30,
)


def make_root(folder: Path) -> Path:
    """The tokenizer's half of a tiny model root: a chat template, and a BOS token before each text."""
    from tests.tiny import VOCAB_SIZE, make_tokenizer

    make_tokenizer().save_pretrained(folder)
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    tokenizer.save(str(path))
    config = {"vocab_size": VOCAB_SIZE, "eos_token_id": 2, "max_position_embeddings": MAX_MODEL_LEN}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def make_deployment(kernel: str = "made-up/1") -> Deployment:
    """A deployment; another kernel makes it another one."""
    return Deployment(
        model=ModelManifest(
            signing_statement={"subject": []},
            tensors_root="sha256:" + "0" * 64,
            tensor_count=0,
            parameter_count=0,
            tokenizer="sha256:" + "1" * 64,
            chat_template=None,
            architecture="FakeForCausalLM",
        ),
        profile=EngineProfile(
            dtype="float32",
            device="none",
            torch="none",
            transformers="none",
            libm="none",
            numba="none",
            cpu_capability="none",
            cpu_features="none",
            linear=kernel,
            attention="none",
            fusion="made-up/1",
            sampler="made-up/1",
        ),
        policy=Policy(max_model_len=MAX_MODEL_LEN, max_top_logprobs=20),
    )


@dataclass
class Knobs:
    """How a `FakeBackend` is to misbehave."""

    fail_after: int | None = None
    """Tokens after which the sequence ends with an error, as the engine reports one."""
    crash_after: int | None = None
    """Tokens after which something raises that nobody expected."""
    vanish_after: int | None = None
    """Tokens after which the deltas end without a finish reason."""
    hang_after: int | None = None
    """Tokens after which nothing more comes."""
    choice: int | None = None
    """The only choice to which the four above happen; None for each."""
    unavailable: bool = False
    lie_at: int | None = None
    """Position (prompt included) from which on another model answers."""
    shade_at: int | None = None
    """Position (prompt included) from which on logprobs, and not tokens, are off by one bit."""
    stride: int = 1
    """Tokens in one delta."""
    pause: float = 0.0
    """Seconds after each delta."""


class _News:
    """What is to be in the next delta."""

    def __init__(self, tokenizer: LocalTokenizer, known: tuple[TokenLogprob | None, ...] | None) -> None:
        self.tokens: list[TokenLogprob] = []
        self.text = ""
        self._known = known
        self._tokenizer = tokenizer

    def add(self, token: TokenLogprob, text: str) -> None:
        self.tokens.append(token)
        self.text += text

    def delta(self, reason, stop) -> Delta:
        made = Delta(
            tokens=tuple(self.tokens),
            token_texts=tuple(self._tokenizer.token_text(token.token_id) for token in self.tokens),
            text=self.text,
            prompt_logprobs=self._known,
            finish_reason=reason,
            stop_reason=stop,
        )
        self.__init__(self._tokenizer, None)
        return made


class FakeBackend:
    """Implements `transom.backends.base.Backend`; honours temperature, bias, stops, eos and logprobs."""

    def __init__(self, name: str, tokenizer: LocalTokenizer) -> None:
        self.served = ServedModel(name=name, deployment=make_deployment(), created=CREATED)
        self.tokenizer = tokenizer
        self.hidden_size = HIDDEN_SIZE
        self.points = POINTS
        self.dimensions = DIMENSIONS
        self.ready = False
        self.knobs = Knobs()
        self.room = WaitingRoom(name, running=64, waiting=1024)
        self.shown = Activity()
        self.taken: list[SequenceRequest] = []
        self.aborted: list[str] = []
        self.started = asyncio.Event()
        self.hanging = asyncio.Event()
        # Bytes that are no ASCII are rare, so that texts can be read; special tokens are rarer.
        common = [self.tokenizer.token_bytes(i).isascii() for i in range(tokenizer.vocab_size)]
        self._leaning = np.where(common, 0.0, -3.0) - 6.0 * (np.arange(tokenizer.vocab_size) < 3)

    async def start(self, announce=None) -> None:
        if announce is not None:
            await announce(self.served.deployment)
        self.ready = True
        self.started.set()

    async def stop(self) -> None:
        self.ready = False

    @property
    def activity(self) -> Activity:
        return replace(self.shown, refusals=dict(self.room.refusals))

    @property
    def max_sequences(self) -> int:
        return self.room.share

    def admit(self, project: str, sequences: int) -> Admission:
        return self.room.admit(project, sequences)

    async def trace(self, program: Program) -> Traced:
        """Zeros for every read that is not reduced; whatever else is asked for is refused."""
        if self.knobs.unavailable:
            raise EngineUnavailable("the fake is not to be had", retry_after=7)
        reads = {f"{run.name}.{read.name}": read for run in program.runs for read in run.reads}
        if not reads.keys() >= {*program.returns} or any(run.sampling.max_tokens for run in program.runs):
            raise PlanFailed("the fake only reads", param="return")
        found = {name: _zeros(reads[name]) for name in program.returns}
        tensors, parts = save(Path(program.file), found, program.trace_id, program.part_bytes)
        return Traced(trace_id=program.trace_id, tensors=tensors, parts=parts)

    async def generate(self, request: SequenceRequest) -> AsyncGenerator[Delta, None]:
        if self.knobs.unavailable:
            raise EngineUnavailable("the fake is not to be had", retry_after=7)
        self.taken.append(request)
        ended = False
        try:
            async for delta in self._deltas(request):
                ended = delta.finish_reason is not None
                yield delta
        finally:
            if not ended:
                self.aborted.append(request.sequence_id)

    async def _deltas(self, request: SequenceRequest) -> AsyncGenerator[Delta, None]:
        params, ids = request.sampling, list(request.prompt_token_ids)
        text = StopText(self.tokenizer.stream(ids), params.stop)
        news = _News(self.tokenizer, self._prompt(ids, request))
        if params.max_tokens == 0:
            yield news.delta("length", None)
        for count in range(params.max_tokens):
            if (excessive := _excessive(request.changes, len(ids))) is not None:
                param = f"transom.write.{excessive}"
                yield Delta(finish_reason="error", error=f"{param} is too much", param=param)
                return
            async for delta in self._misbehave(request.choice, count):
                yield delta
                return
            token = self._draw(ids, request)
            ids.append(token.token_id)
            news.add(token, text.push(token.token_id))
            reason, stop = self._ending(token.token_id, params, text, last=count + 1 == params.max_tokens)
            if reason is not None:
                news.text += text.finish()
                if text.stopped_by is not None:
                    reason, stop = "stop", text.stopped_by
            if reason is not None or len(news.tokens) == self.knobs.stride:
                yield news.delta(reason, stop)
                await asyncio.sleep(self.knobs.pause)
            if reason is not None:
                return

    async def _misbehave(self, choice: int, count: int) -> AsyncGenerator[Delta, None]:
        """A delta, where it is to be the last."""
        knobs = self.knobs
        if knobs.choice not in (None, choice):
            return
        if count == knobs.hang_after:
            self.hanging.set()
            await asyncio.Event().wait()
        if count == knobs.crash_after:
            raise ZeroDivisionError("nobody expected this")
        if count == knobs.fail_after:
            yield Delta(finish_reason="error", error="the fake was told to fail")
        if count == knobs.vanish_after:
            yield Delta()

    def _ending(self, token_id: int, params: SamplingParams, text: StopText, *, last: bool):
        if text.stopped_by is not None:
            return "stop", text.stopped_by
        if token_id in params.stop_token_ids:
            return "stop", token_id
        if token_id in self.tokenizer.eos_token_ids and not params.ignore_eos:
            return "stop", None
        return ("length" if last else None), None

    def _logprobs(self, ids: Sequence[int], changes: Changes | None) -> np.ndarray:
        """Made-up float32 log-probabilities of the token after `ids`."""
        lie = self.knobs.lie_at is not None and len(ids) >= self.knobs.lie_at
        data = np.asarray(ids, "<u4").tobytes() + b"lie" * lie + _written(changes, len(ids))
        chance = np.random.default_rng(int.from_bytes(hashlib.sha256(data).digest()[:8]))
        logits = 2.0 * chance.standard_normal(self.tokenizer.vocab_size) + self._leaning
        found = (logits - np.log(np.exp(logits).sum())).astype(np.float32)
        if self.knobs.shade_at is not None and len(ids) >= self.knobs.shade_at:
            found = np.nextafter(found, np.float32(-np.inf))
        return found

    def _draw(self, ids: list[int], request: SequenceRequest) -> TokenLogprob:
        params, row = request.sampling, self._logprobs(ids, request.changes)
        scores = row.astype(np.float64)
        for token_id, bias in params.logit_bias:
            scores[token_id] += bias
        if params.temperature > 0:
            key = f"{params.seed}/{len(ids)}/{request.choice}".encode()
            noise = np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()[:8]))
            scores += params.temperature * noise.gumbel(size=len(scores))
        place = len(ids) - len(request.prompt_token_ids)
        token = _describe(row, int(scores.argmax()), params.logprobs)
        return _measure(row, token, params.measures, whole=place in params.distributions)

    def _prompt(self, ids: list[int], request: SequenceRequest) -> tuple[TokenLogprob | None, ...] | None:
        params = request.sampling
        if not params.scores_prompt:
            return None
        told: list[TokenLogprob | None] = [None]
        for i in range(1, len(ids)):
            row = self._logprobs(ids[:i], request.changes)
            token = _describe(row, ids[i], params.prompt_logprobs)
            told.append(_measure(row, token, params.prompt_measures, whole=i in params.prompt_distributions))
        return tuple(told)


def _met(changes: Changes | None, length: int) -> list[tuple[int, WriteSpec]]:
    """The writes that are made where so many tokens are computed, with their places."""
    writes = () if changes is None else changes.writes
    return [(index, write) for index, write in enumerate(writes) if write.site.positions[0] < length]


def _written(changes: Changes | None, length: int) -> bytes:
    """What a made-up answer depends on beside its tokens."""
    met = [write for _, write in _met(changes, length)]
    if changes is None or not met:
        return b""
    spelled = [(w.site.point, w.site.layer, w.site.heads, w.op, w.number, w.scale, w.value) for w in met]
    return repr(spelled).encode() + b"".join(tensor.data for tensor in changes.tensors.values())


def _excessive(changes: Changes | None, length: int) -> int | None:
    """The first write that sets something too large."""
    return next((index for index, write in _met(changes, length) if abs(write.number) > 1e12), None)


def _zeros(read: ReadSpec) -> Value:
    site = read.sites[0]
    point = next(point for point in POINTS if point.name == site.point)
    heads = (len(site.heads) or point.heads,) if point.heads > 1 else ()
    layers = (len(read.sites),) if read.layered else ()
    shape = (*layers, len(site.positions), *heads, len(site.units) or point.width)
    axes = ("layer",) * read.layered + ("pos",) + ("head",) * len(heads) + ("unit",)
    return Value(np.zeros(shape, np.float32), axes)


def _describe(row: np.ndarray, token_id: int, top: int | None) -> TokenLogprob:
    order = np.argsort(-row, kind="stable")
    rank = int(np.nonzero(order == token_id)[0][0]) + 1
    best = tuple((int(i), float(row[i])) for i in order[: top or 0])
    return TokenLogprob(token_id, float(row[token_id]), rank, best)


def _measure(row: np.ndarray, token: TokenLogprob, measures: Measures | None, *, whole: bool) -> TokenLogprob:
    """The token with what is asked of the whole row; its divergence is that of a greedy choice."""
    measured, chances = None, np.exp(row.astype(np.float64))
    if measures is not None:
        mass = np.sort(chances)[::-1][: measures.top_k_mass].sum()
        measured = Measured(
            float(-(chances * row).sum()) if measures.entropy else None,
            float(mass) if measures.top_k_mass else None,
            -token.logprob if measures.kl else None,
        )
    return replace(token, measured=measured, distribution=row.astype("<f4").tobytes() if whole else None)
