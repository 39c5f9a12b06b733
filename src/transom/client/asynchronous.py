"""The client for asyncio; method for method the same as the one that waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar, Unpack

import httpx2

from transom.client import artifacts, downloads, failures, operations
from transom.client.artifacts import Tensors
from transom.client.connection import DEFAULT_TIMEOUT, Connection
from transom.client.failures import ServerUnreachable
from transom.client.inside import Traced
from transom.client.interp.models import AsyncLanguageModel
from transom.client.operations import DONE, Operation
from transom.client.options import ChatOptions, CompletionOptions, Conversation, Prompt
from transom.client.types import Chat, ChatChunk, Completion, CompletionChunk, Model, Tokens
from transom.errors import InvalidRequest, TransomError
from transom.schema.artifacts import ArtifactPage, ArtifactView
from transom.schema.explanations import Explanation
from transom.schema.manifest import Manifest
from transom.schema.point_views import PointPage
from transom.schema.randomness import bring_nonces
from transom.schema.record import RecordPage, RecordSummary, RecordView, ReplayReport

T = TypeVar("T")


class AsyncClient:
    """Asks a Transom server, many questions at a time: `Client`, awaited. Use it in an `async with`."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float | httpx2.Timeout = DEFAULT_TIMEOUT,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        connection = Connection.find(base_url, api_key)
        self.base_url = connection.base_url
        self._http = httpx2.AsyncClient(transport=transport, **connection.options(timeout))
        self._only_model: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def complete(
        self, prompt: Prompt, *, model: str | None = None, **options: Unpack[CompletionOptions]
    ) -> Completion:
        """Continue a prompt, or several; token ids are taken as they are."""
        return await self.send(operations.complete(await self._named(model), prompt, options))

    async def stream_complete(
        self, prompt: Prompt, *, model: str | None = None, **options: Unpack[CompletionOptions]
    ) -> AsyncGenerator[CompletionChunk, None]:
        """Continue a prompt, yielding each piece as it arrives; asked when the first is taken.

        Closing the generator before its end aborts the answer.
        """
        operation = operations.stream_complete(await self._named(model), prompt, options)
        async with aclosing(self.stream(operation)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def chat(
        self, messages: Conversation, *, model: str | None = None, **options: Unpack[ChatOptions]
    ) -> Chat:
        """Continue a conversation by the assistant's turn."""
        return await self.send(operations.chat(await self._named(model), messages, options))

    async def stream_chat(
        self, messages: Conversation, *, model: str | None = None, **options: Unpack[ChatOptions]
    ) -> AsyncGenerator[ChatChunk, None]:
        """Continue a conversation, yielding each piece as it arrives; see `stream_complete`."""
        operation = operations.stream_chat(await self._named(model), messages, options)
        async with aclosing(self.stream(operation)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def tokenize(
        self, text: Conversation, *, model: str | None = None, add_special_tokens: bool | None = None
    ) -> Tokens:
        """Token ids of a text, or of messages as the chat template spells them."""
        return await self.send(
            operations.tokenize(await self._named(model), text, add_special_tokens=add_special_tokens)
        )

    async def detokenize(self, token_ids: Sequence[int], *, model: str | None = None) -> str:
        """Text of token ids, special tokens included."""
        return await self.send(operations.detokenize(await self._named(model), token_ids))

    async def models(self) -> tuple[Model, ...]:
        """Every model served, with the manifest of its deployment."""
        return await self.send(operations.models())

    async def model(self, name: str | None = None) -> AsyncLanguageModel:
        """A model to look into: `name`, or the only one that is served.

        Raises:
            InvalidRequest: none is named and there is a choice; the message names them.
        """
        return AsyncLanguageModel(self, await self._named(name))

    async def points(self, *, model: str | None = None) -> PointPage:
        """Where a model can be read and written inside."""
        return await self.send(operations.points(await self._named(model)))

    async def trace(self, plan: Mapping[str, Any], out: str | Path | None = None) -> Traced:
        """Carry out a plan: `runs`, `return` and the rest of its grammar; see docs/howto/look-inside.md.

        A result that does not fit one answer, or is to be kept in a file, is fetched in parts; see `fetch`.

        Args:
            plan: as the server takes it.
            out: file to keep the result in; what is returned is read from it as it is used.
        """
        model = await self._named(plan.get("model"))
        if out is None and not operations.wants_parts(plan):
            try:
                return await self.send(operations.trace(model, plan))
            except InvalidRequest as refusal:
                if not operations.is_too_large(refusal):
                    raise
        # The file is opened first: a result that cannot be kept would have been charged all the same.
        with downloads.opened(out) as file:
            manifest = await self.manifest({**plan, "model": model})
            await self.fetch(manifest, file)
            return Traced.open(file).computed_by(manifest.deployment)

    async def manifest(self, plan: Mapping[str, Any]) -> Manifest:
        """Carry out a plan whose result is fetched apart: what there is, and until when."""
        return await self.send(operations.manifest(await self._named(plan.get("model")), plan))

    async def fetch(self, manifest: Manifest, file: BinaryIO) -> None:
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
                with failures.reaching(self.base_url):
                    async with self._http.stream("GET", path, headers=download.headers) as response:
                        if not response.is_success:
                            await response.aread()
                            raise failures.of_response(response)
                        download.begin(response)
                        async for chunk in response.aiter_bytes():
                            download.take(chunk)
                download.end()
            except ServerUnreachable as broken:
                await asyncio.sleep(download.pause_after(broken))
        file.flush()
        with suppress(TransomError):
            await self.discard(manifest)

    async def discard(self, manifest: Manifest) -> None:
        """Have the server forget a result that it keeps."""
        await self.send(operations.discard(manifest))

    async def explain(self, plan: Mapping[str, Any]) -> Explanation:
        """What a plan would take and give; nothing runs, and a request is all that is charged."""
        return await self.send(operations.explain(await self._named(plan.get("model")), plan))

    async def upload_artifact(self, tensors: Tensors) -> ArtifactView:
        """Keep tensors for plans: arrays by name, or a safetensors file. Its `id` is what plans call them.

        They are float32, float16, bfloat16, or integers of 8 or 16 bits, and all finite.
        """
        return await self.send(artifacts.upload(tensors))

    async def artifacts(self, after: str | None = None, limit: int = 20) -> ArtifactPage:
        """A page of the project's artifacts, newest first."""
        return await self.send(artifacts.artifacts(after, limit))

    async def artifact(self, artifact_id: str) -> ArtifactView:
        """What an artifact holds."""
        return await self.send(artifacts.artifact(artifact_id))

    async def download_artifact(self, artifact_id: str) -> bytes:
        """The safetensors file that was uploaded."""
        return await self.send(artifacts.content(artifact_id))

    async def delete_artifact(self, artifact_id: str) -> None:
        """Delete an artifact; plans that took it cannot be replayed any more."""
        return await self.send(artifacts.delete(artifact_id))

    async def records(self, after: str | None = None, limit: int = 20) -> RecordPage:
        """A page of the project's records, newest first."""
        return await self.send(operations.records(after, limit))

    async def all_records(self, limit: int = 100) -> AsyncIterator[RecordSummary]:
        """Every record of the project, newest first, fetched in pages of `limit`."""
        after: str | None = None
        while True:
            page = await self.records(after, limit)
            for summary in page.data:
                yield summary
            if page.after is None:
                return
            after = page.after

    async def record(self, record_id: str) -> RecordView:
        """A whole record; see `transom.client.verify_record`."""
        return await self.send(operations.record(record_id))

    async def joint_seeds(self, count: int = 1) -> list[dict[str, str]]:
        """Seeds that neither side picks, each for one request: a promise of the server and a nonce of now.

        The record shows how its seed was made of both; `transom verify` computes it again.
        """
        return bring_nonces(await self.send(operations.seeds(count)))

    async def replay(self, record_id: str) -> ReplayReport:
        """Have a record run again: `EXACT`, or where it differs."""
        return await self.send(operations.replay(record_id))

    async def send(self, operation: Operation[T]) -> T:
        """Carry out one operation; the methods above are shorthands for this."""
        body = operation.content
        request = self._http.stream(
            operation.method,
            operation.path,
            json=operation.json,
            params=operation.params,
            content=None if body is None else body.awaited(),
            headers=None if body is None else body.headers,
        )
        with failures.reaching(self.base_url):
            async with request as response:
                large = operation.room(response)
                if large is None:
                    await response.aread()
                else:
                    async for chunk in response.aiter_bytes():
                        large.take(chunk)
        return operation.read(response, large)

    async def stream(self, operation: Operation[T]) -> AsyncGenerator[T, None]:
        """Carry out one operation whose reply is a stream of events."""
        request = self._http.stream(operation.method, operation.path, json=operation.json)
        done = False
        with failures.reaching(self.base_url):
            async with request as response:
                if not response.is_success:
                    await response.aread()
                    raise failures.of_response(response)
                async for event in httpx2.EventSource(response, max_event_size=None):
                    if event.data == DONE:
                        done = True  # and read on: at its end the connection is free for the next request
                    else:
                        yield operation.read_event(event)
        if not done:
            raise failures.cut_short(self.base_url)

    async def _named(self, name: str | None) -> str:
        if name is not None:
            return name
        if self._only_model is None:
            self._only_model = operations.only_model(await self.models())
        return self._only_model
