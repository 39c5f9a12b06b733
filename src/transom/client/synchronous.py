"""The client that waits."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar, Unpack

import httpx2

from transom.client import artifacts, downloads, failures, operations
from transom.client.artifacts import Tensors
from transom.client.bounded import bounding
from transom.client.connection import DEFAULT_TIMEOUT, Connection
from transom.client.failures import ServerUnreachable
from transom.client.inside import Traced
from transom.client.interp.models import LanguageModel
from transom.client.operations import DONE, Operation
from transom.client.options import ChatOptions, CompletionOptions, Conversation, Prompt, ScoreOptions
from transom.client.types import Chat, ChatChunk, Completion, CompletionChunk, Model, Scores, Tokens
from transom.errors import InvalidRequest, TransomError
from transom.schema.artifacts import ArtifactPage, ArtifactView
from transom.schema.explanations import Explanation
from transom.schema.manifest import Manifest
from transom.schema.point_views import PointPage
from transom.schema.randomness import bring_nonces
from transom.schema.record import RecordPage, RecordSummary, RecordView, ReplayReport

T = TypeVar("T")


class Client:
    """Asks a Transom server, one question after the other. Close it, or use it in a `with`.

    Where no model is named, the server's only one is meant; it is looked up once.

    Nothing is retried but `fetch`: each request that was answered is a record and may count against a quota,
    so asking twice is for the caller to decide. `EngineUnavailable.retry_after` says when it may help.

    Args:
        base_url: such as `http://127.0.0.1:8600`; else `TRANSOM_BASE_URL` or `OPENAI_BASE_URL`.
        api_key: a key, `""` for none; else `TRANSOM_API_KEY`, or `OPENAI_API_KEY` where that is a Transom
            key or the address came from `OPENAI_BASE_URL`.
        timeout: seconds to wait for the next bytes.
        transport: in the place of the network, for tests.
        most_seconds: for a whole reply, which may then have 64 MiB; None where the server is trusted to end.

    Every method raises `TransomError`: `ServerUnreachable`, `Unauthenticated`, `InvalidRequest`, ….
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float | httpx2.Timeout = DEFAULT_TIMEOUT,
        transport: httpx2.BaseTransport | None = None,
        most_seconds: float | None = None,
    ) -> None:
        connection = Connection.find(base_url, api_key)
        self.base_url = connection.base_url
        self._http = httpx2.Client(transport=transport, **connection.options(timeout))
        if most_seconds is not None:
            self._http.headers["accept-encoding"] = "identity"
            self._http.event_hooks = {"response": [bounding(most_seconds)]}
        self._only_model: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def complete(
        self, prompt: Prompt, *, model: str | None = None, **options: Unpack[CompletionOptions]
    ) -> Completion:
        """Continue a prompt, or several; token ids are taken as they are."""
        return self.send(operations.complete(self._named(model), prompt, options))

    def stream_complete(
        self, prompt: Prompt, *, model: str | None = None, **options: Unpack[CompletionOptions]
    ) -> Generator[CompletionChunk, None, None]:
        """Continue a prompt, yielding each piece as it arrives; asked when the first is taken.

        Closing the generator before its end aborts the answer.
        """
        yield from self.stream(operations.stream_complete(self._named(model), prompt, options))

    def chat(
        self, messages: Conversation, *, model: str | None = None, **options: Unpack[ChatOptions]
    ) -> Chat:
        """Continue a conversation by the assistant's turn."""
        return self.send(operations.chat(self._named(model), messages, options))

    def stream_chat(
        self, messages: Conversation, *, model: str | None = None, **options: Unpack[ChatOptions]
    ) -> Generator[ChatChunk, None, None]:
        """Continue a conversation, yielding each piece as it arrives; see `stream_complete`."""
        yield from self.stream(operations.stream_chat(self._named(model), messages, options))

    def score(
        self,
        items: Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Scores:
        """Score answers from anywhere, token by token; with a seed, tell whether they would have been drawn.

        Args:
            items: each with `prompt` or `messages`, and the `completion` that follows: text or token ids.
            model: that scores them.
            options: see `ScoreOptions`.
        """
        return self.send(operations.score(self._named(model), items, options))

    def tokenize(
        self, text: Conversation, *, model: str | None = None, add_special_tokens: bool | None = None
    ) -> Tokens:
        """Token ids of a text, or of messages as the chat template spells them."""
        return self.send(operations.tokenize(self._named(model), text, add_special_tokens=add_special_tokens))

    def detokenize(self, token_ids: Sequence[int], *, model: str | None = None) -> str:
        """Text of token ids, special tokens included."""
        return self.send(operations.detokenize(self._named(model), token_ids))

    def models(self) -> tuple[Model, ...]:
        """Every model served, with the manifest of its deployment."""
        return self.send(operations.models())

    def model(self, name: str | None = None) -> LanguageModel:
        """A model to look into: `name`, or the only one that is served.

        Raises:
            InvalidRequest: none is named and there is a choice; the message names them.
        """
        return LanguageModel(self, self._named(name))

    def points(self, *, model: str | None = None) -> PointPage:
        """Where a model can be read and written inside."""
        return self.send(operations.points(self._named(model)))

    def trace(self, plan: Mapping[str, Any], out: str | Path | None = None) -> Traced:
        """Carry out a plan: `runs`, `return` and the rest of its grammar; see docs/howto/look-inside.md.

        A result that does not fit one answer, or is to be kept in a file, is fetched in parts; see `fetch`.

        Args:
            plan: as the server takes it.
            out: file to keep the result in; what is returned is read from it as it is used.
        """
        model = self._named(plan.get("model"))
        if out is None and not operations.wants_parts(plan):
            try:
                return self.send(operations.trace(model, plan))
            except InvalidRequest as refusal:
                if not operations.is_too_large(refusal):
                    raise
        # The file is opened first: a result that cannot be kept would have been charged all the same.
        with downloads.opened(out) as file:
            manifest = self.manifest({**plan, "model": model})
            self.fetch(manifest, file)
            return Traced.open(file).computed_by(manifest.deployment)

    def manifest(self, plan: Mapping[str, Any]) -> Manifest:
        """Carry out a plan whose result is fetched apart: what there is, and until when."""
        return self.send(operations.manifest(self._named(plan.get("model")), plan))

    def fetch(self, manifest: Manifest, file: BinaryIO) -> None:
        """Fetch the result that a manifest lists into a file, and have the server forget it.

        A connection that breaks is made anew, and goes on where it broke; each part is checked by its digest.
        This asks nothing of the model, and makes no record.

        Args:
            manifest: of the result.
            file: empty, and opened for reading and writing.
        """
        download, path = downloads.Download(manifest, file), operations.result_path(manifest)
        while not download.is_done:
            try:
                with (
                    failures.reaching(self.base_url),
                    self._http.stream("GET", path, headers=download.headers) as response,
                ):
                    if not response.is_success:
                        response.read()
                        raise failures.of_response(response)
                    download.begin(response)
                    for chunk in response.iter_bytes():
                        download.take(chunk)
                download.end()
            except ServerUnreachable as broken:
                time.sleep(download.pause_after(broken))
        file.flush()
        with suppress(TransomError):
            self.discard(manifest)

    def discard(self, manifest: Manifest) -> None:
        """Have the server forget a result that it keeps."""
        self.send(operations.discard(manifest))

    def explain(self, plan: Mapping[str, Any]) -> Explanation:
        """What a plan would take and give; nothing runs, and a request is all that is charged."""
        return self.send(operations.explain(self._named(plan.get("model")), plan))

    def upload_artifact(self, tensors: Tensors) -> ArtifactView:
        """Keep tensors for plans: arrays by name, or a safetensors file. Its `id` is what plans call them.

        They are float32, float16, bfloat16, or integers of 8 or 16 bits, and all finite.
        """
        return self.send(artifacts.upload(tensors))

    def artifacts(self, after: str | None = None, limit: int = 20) -> ArtifactPage:
        """A page of the project's artifacts, newest first."""
        return self.send(artifacts.artifacts(after, limit))

    def artifact(self, artifact_id: str) -> ArtifactView:
        """What an artifact holds."""
        return self.send(artifacts.artifact(artifact_id))

    def download_artifact(self, artifact_id: str) -> bytes:
        """The safetensors file that was uploaded."""
        return self.send(artifacts.content(artifact_id))

    def delete_artifact(self, artifact_id: str) -> None:
        """Delete an artifact; plans that took it cannot be replayed any more."""
        return self.send(artifacts.delete(artifact_id))

    def records(self, after: str | None = None, limit: int = 20) -> RecordPage:
        """A page of the project's records, newest first."""
        return self.send(operations.records(after, limit))

    def all_records(self, limit: int = 100) -> Iterator[RecordSummary]:
        """Every record of the project, newest first, fetched in pages of `limit`."""
        after: str | None = None
        while True:
            page = self.records(after, limit)
            yield from page.data
            if page.after is None:
                return
            after = page.after

    def record(self, record_id: str) -> RecordView:
        """A whole record; see `transom.client.verify_record`."""
        return self.send(operations.record(record_id))

    def joint_seeds(self, count: int = 1) -> list[dict[str, str]]:
        """Seeds that neither side picks, each for one request: a promise of the server and a nonce of now.

        The record shows how its seed was made of both; `transom verify` computes it again.
        """
        return bring_nonces(self.send(operations.seeds(count)))

    def replay(self, record_id: str) -> ReplayReport:
        """Have a record run again: `EXACT`, or where it differs."""
        return self.send(operations.replay(record_id))

    def replay_all(self, record_ids: Sequence[str]) -> tuple[ReplayReport, ...]:
        """Have up to 512 records run again together; the reports in the order of the ids."""
        return self.send(operations.replay_all(record_ids))

    def send(self, operation: Operation[T]) -> T:
        """Carry out one operation; the methods above are shorthands for this."""
        body = operation.content
        request = self._http.stream(
            operation.method,
            operation.path,
            json=operation.json,
            params=operation.params,
            content=None if body is None else body.pieces(),
            headers=None if body is None else body.headers,
        )
        with failures.reaching(self.base_url), request as response:
            large = operation.room(response)
            if large is None:
                response.read()
            else:
                for chunk in response.iter_bytes():
                    large.take(chunk)
        return operation.read(response, large)

    def stream(self, operation: Operation[T]) -> Generator[T, None, None]:
        """Carry out one operation whose reply is a stream of events."""
        done = False
        with (
            failures.reaching(self.base_url),
            self._http.stream(operation.method, operation.path, json=operation.json) as response,
        ):
            if not response.is_success:
                response.read()
                raise failures.of_response(response)
            for event in httpx2.EventSource(response, max_event_size=None):
                if event.data == DONE:
                    done = True  # and read on: at its end the connection is free for the next request
                else:
                    yield operation.read_event(event)
        if not done:
            raise failures.cut_short(self.base_url)

    def _named(self, name: str | None) -> str:
        if name is not None:
            return name
        if self._only_model is None:
            self._only_model = operations.only_model(self.models())
        return self._only_model
