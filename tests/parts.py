"""A stand-in for a server that keeps one result to be fetched in parts, over a line that breaks when told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import numpy as np
from safetensors.numpy import save

ARRAY = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
TOTAL = np.array(7, np.float32)
BODY = save(
    {"a.x": ARRAY, "a.total": TOTAL}, {"axes.a.x": "layer,pos,unit", "axes.a.total": "", "record": "rec_1"}
)
DEPLOYMENT = "sha256:" + "ab" * 32
TOO_LARGE = {"message": "Ask for parts.", "param": "format", "code": "plan_too_large", "layer": "api"}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def listed(array: np.ndarray, *axes: str) -> dict[str, Any]:
    return {"dtype": "float32", "shape": array.shape, "axes": axes, "sha256": digest(array.tobytes())}


def manifest(body: bytes = BODY, size: int = 50) -> dict[str, Any]:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return {
        "id": "rec_1",
        "object": "trace",
        "model": "m",
        "deployment": DEPLOYMENT,
        "tensors": {"a.x": listed(ARRAY, "layer", "pos", "unit"), "a.total": listed(TOTAL)},
        "file": {"url": "/v1/traces/rec_1/file", "bytes": len(body)},
        "parts": [
            {"start": index * size, "bytes": len(piece), "sha256": digest(piece)}
            for index, piece in enumerate(pieces)
        ],
        "expires": "2026-01-31T09:05:00.000001Z",
    }


class _Line(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that comes in small pieces, and perhaps breaks off."""

    def __init__(self, body: bytes, most: int | None) -> None:
        self._body = body if most is None else body[:most]
        self._breaks = most is not None and most < len(body)

    def __iter__(self) -> Iterator[bytes]:
        yield from (self._body[start : start + 7] for start in range(0, len(self._body), 7))
        if self._breaks:
            raise httpx2.ReadError("the line broke")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


class KeepingServer:
    """Answers plans with a manifest, and the file by ranges.

    `breaks` holds after how many bytes each GET breaks off, None for not at all; GETs beyond it do not.
    `spoil` changes what a GET sends.
    """

    def __init__(self) -> None:
        self.requests: list[httpx2.Request] = []
        self.manifest = manifest()
        self.breaks: list[int | None] = []
        self.spoil: Callable[[int, bytes], bytes] = lambda _number, body: body
        self.whole = False
        """Whether ranges are not answered."""
        self.too_large = False
        """Whether one answer does not hold it."""

    @property
    def methods(self) -> list[str]:
        return [request.method for request in self.requests]

    @property
    def ranges(self) -> list[str]:
        return [request.headers["range"] for request in self.requests if request.method == "GET"]

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if request.method == "POST":
            if json.loads(request.content)["format"] == "parts":
                return httpx2.Response(200, content=json.dumps(self.manifest).encode())
            if self.too_large:
                return httpx2.Response(400, json={"error": TOO_LARGE})
            return httpx2.Response(200, content=BODY, headers={"x-transom-deployment": DEPLOYMENT})
        assert request.url.path == "/v1/traces/rec_1/file"
        return httpx2.Response(204) if request.method == "DELETE" else self._range(request)

    def _range(self, request: httpx2.Request) -> httpx2.Response:
        number = len(self.ranges) - 1
        start = 0 if self.whole else int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
        body = self.spoil(number, BODY[start:])
        most = self.breaks[number] if number < len(self.breaks) else None
        headers = {"content-range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"}
        return httpx2.Response(200 if self.whole else 206, stream=_Line(body, most), headers=headers)
