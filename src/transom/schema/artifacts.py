"""Artifacts over HTTP: tensors that a project uploaded, for its plans to refer to."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from pydantic import Field

from transom.schema.projects import Moment
from transom.schema.record import Read

MEDIA_TYPE = "application/vnd.safetensors"

PREFIX = "artifact:"

ArtifactDType: TypeAlias = Literal["float32", "float16", "bfloat16", "int8", "uint8", "int16", "uint16"]
"""What an artifact can hold: every number of these types is one of float32 too, in which plans compute."""

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


def digest_in(text: str) -> str | None:
    """The SHA-256 in an artifact's id, or by itself; None where it is neither."""
    bare = text.removeprefix(PREFIX)
    return bare if _DIGEST.fullmatch(bare) else None


class ArtifactTensor(Read):
    """One tensor of an artifact."""

    dtype: ArtifactDType
    shape: tuple[int, ...] = Field(description="Length of each axis, the outermost first")


class ArtifactView(Read):
    """An artifact."""

    id: str = Field(
        description="`artifact:` and the SHA-256 of its bytes: what plans call it, with `#` and the name of "
        "a tensor where it has several"
    )
    bytes: int = Field(description="Of the whole file")
    tensors: dict[str, ArtifactTensor]
    created: Moment = Field(description="RFC 3339, UTC: when the project first uploaded it")


class ArtifactPage(Read):
    """Some of a project's artifacts, newest first."""

    data: tuple[ArtifactView, ...]
    after: str | None = Field(description="Cursor of the next page; null on the last one")
