"""Requests about artifacts, as data: tensors that plans refer to as `artifact:<SHA-256>`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save

from transom.client.operations import Body, Operation
from transom.errors import InvalidRequest
from transom.schema.artifacts import MEDIA_TYPE, PREFIX, ArtifactPage, ArtifactView, digest_in

Tensors: TypeAlias = "Mapping[str, NDArray[Any]] | str | Path"
"""Arrays by name, or a safetensors file."""

_AT_ONCE = 1 << 20


def upload(tensors: Tensors) -> Operation[ArtifactView]:
    """`POST /v1/artifacts`.

    Raises:
        InvalidRequest: there is no such file, or that are no tensors.
    """
    content = _content(tensors) if isinstance(tensors, Mapping) else _file(Path(tensors))
    return Operation("POST", "/v1/artifacts", ArtifactView.model_validate_json, content=content)


def artifacts(after: str | None, limit: int) -> Operation[ArtifactPage]:
    """`GET /v1/artifacts`."""
    params: dict[str, str | int] = {"limit": limit} if after is None else {"limit": limit, "after": after}
    return Operation("GET", "/v1/artifacts", ArtifactPage.model_validate_json, params=params)


def artifact(artifact_id: str) -> Operation[ArtifactView]:
    """`GET /v1/artifacts/{id}`."""
    return Operation("GET", _path(artifact_id), ArtifactView.model_validate_json)


def content(artifact_id: str) -> Operation[bytes]:
    """`GET /v1/artifacts/{id}/content`."""
    return Operation("GET", _path(artifact_id) + "/content", bytes)


def delete(artifact_id: str) -> Operation[None]:
    """`DELETE /v1/artifacts/{id}`."""
    return Operation("DELETE", _path(artifact_id), _nothing)


def _content(tensors: Mapping[str, NDArray[Any]]) -> Body:
    try:
        whole = save({name: np.ascontiguousarray(array) for name, array in tensors.items()})
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"These are no tensors: {error}", param="tensors") from error
    return Body(MEDIA_TYPE, len(whole), lambda: iter((whole,)))


def _file(path: Path) -> Body:
    try:
        return Body(MEDIA_TYPE, path.stat().st_size, _pieces_of(path))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}", param="tensors") from error


def _pieces_of(path: Path) -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        with path.open("rb") as file:
            while piece := file.read(_AT_ONCE):
                yield piece

    return pieces


def _path(artifact_id: str) -> str:
    if digest_in(artifact_id) is None:
        raise InvalidRequest(
            f"{artifact_id!r} is no artifact; write {PREFIX} and 64 lower-case hexadecimal digits.",
            param="id",
        )
    return f"/v1/artifacts/{quote(artifact_id, safe=':')}"


def _nothing(_data: bytes) -> None:
    return None
