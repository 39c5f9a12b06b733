"""Artifacts: kept and shown for their project, and brought to its plans."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from transom.access.keys.callers import Caller
from transom.artifacts.store import Artifact
from transom.errors import Forbidden, InvalidRequest, StorageError
from transom.schema.artifacts import MEDIA_TYPE, ArtifactPage, ArtifactView
from transom.schema.changes import TensorData
from transom.schema.plan import Plan
from transom.schema.plans.refs import Artifact as Reference
from transom.services.house import House
from transom.services.planning.resolved import Known, Needed, tensor_of

INSIDE = ("internals:read", "internals:write", "internals:grad")
"""Scopes whose plans take artifacts; who has one of them may upload."""


async def put(
    house: House, caller: Caller, kind: str, declared: int, stream: AsyncIterator[bytes]
) -> tuple[ArtifactView, bool]:
    """Keep an artifact.

    Args:
        house: where.
        caller: whose project it will be of.
        kind: the media type that it comes as.
        declared: the bytes that it says it has; 0 where it does not.
        stream: its bytes.

    Returns:
        The artifact, and whether the project did not have it before.

    Raises:
        AccessDenied, Conflict: the caller may not, or may ask for nothing new.
        InvalidRequest: it is no artifact, or does not come as safetensors.
        PayloadTooLarge, QuotaExceeded: it is too large, or the project would have too much.
        StorageError: it is not kept.
    """
    _require_project(caller)
    caller.require_open()
    entitlement = await house.entitlements.of(caller)
    if not entitlement.scopes.intersection(INSIDE):
        entitlement.require(INSIDE[0])
    if kind != MEDIA_TYPE:
        raise InvalidRequest(
            f"The content type is {kind[:60] or 'missing'}; send a safetensors file as {MEDIA_TYPE}.",
            param="content-type",
            code="unsupported_media_type",
        )
    with house.occupied():
        artifact, is_new = await house.office.artifacts.put(caller.project_id, stream, declared)
    return artifact.view(), is_new


async def page(house: House, caller: Caller, after: str | None, limit: int) -> ArtifactPage:
    """The project's artifacts, newest first.

    Raises:
        AccessDenied: the caller has no project, or a key that was made for something else.
        InvalidRequest: `after` is no cursor.
    """
    await _require_keeper(house, caller)
    return await house.office.artifacts.page(caller.project_id, after, limit)


async def show(house: House, caller: Caller, name: str) -> ArtifactView:
    """One of the project's artifacts; raises as `find` does."""
    return (await find(house, caller, name)).view()


async def find(house: House, caller: Caller, name: str) -> Artifact:
    """One of the project's artifacts, with its content.

    Raises:
        AccessDenied: as `page`.
        NotFound: there is none, or it is another project's.
    """
    await _require_keeper(house, caller)
    return await house.office.artifacts.get(caller.project_id, name)


async def content(house: House, caller: Caller, name: str) -> tuple[int, Iterator[bytes]]:
    """The bytes of one of the project's artifacts: how many, and what reads them, piece by piece.

    Raises:
        AccessDenied, NotFound: as `find`.
        StorageError: it cannot be read; while it is read, too.
    """
    sealed = (await find(house, caller, name)).content
    pieces = sealed.read(0, sealed.size)
    # Before anything is answered: what is missing or broken is an error then, and no answer that breaks off.
    first = await asyncio.to_thread(next, pieces)
    return sealed.size, chain([first], pieces)


async def delete(house: House, caller: Caller, name: str) -> None:
    """Delete one of the project's artifacts; raises as `find` does."""
    await _require_keeper(house, caller)
    await house.office.artifacts.delete(caller.project_id, name)


async def known(house: House, caller: Caller, plan: Plan) -> Known:
    """What is known of the artifacts that a plan takes, before anything of them is read.

    Those that the caller's project has not are left out, whoever else has them.
    """
    digests = {ref.sha256 for _, ref in plan.artifacts()}
    if not digests or caller.anonymous:
        return {}
    found = await house.office.artifacts.find(caller.project_id, digests)
    return {
        digest: {name: tensor.shape for name, tensor in artifact.tensors.items()}
        for digest, artifact in found.items()
    }


async def bring(
    house: House, project_id: str, needed: Mapping[str, Needed], file: Path
) -> dict[str, TensorData]:
    """Put the tensors that a plan takes where the engine finds them, as float32, and nothing else of them.

    Args:
        house: where they are kept.
        project_id: whose they are.
        needed: by the names of their values.
        file: where they are put; whoever called deletes it.

    Raises:
        InvalidRequest: one was deleted a moment ago.
        StorageError: one cannot be read, or not be put there.
    """
    if not needed:
        return {}
    found = await house.office.artifacts.find(project_id, {each.sha256 for each in needed.values()})
    for each in needed.values():
        if each.sha256 not in found:
            raise InvalidRequest(
                f"The artifact {each.sha256} was deleted before the plan began.",
                param=each.param,
                code="unknown_artifact",
            )
    try:
        # Opened here: a thread that nobody waits for any more must not make a file that nobody deletes.
        with file.open("xb") as into:
            return await asyncio.to_thread(lambda: dict(_written(needed, found, into)))
    except OSError as error:
        raise StorageError(f"The artifacts of a plan could not be laid out: {error.strerror}") from error


def _written(
    needed: Mapping[str, Needed], found: Mapping[str, Artifact], into: BinaryIO
) -> Iterator[tuple[str, TensorData]]:
    for value, each in needed.items():
        artifact, start = found[each.sha256], into.tell()
        for piece in artifact.tensors[each.tensor].numbers(artifact.content.read):
            into.write(piece.astype("<f4", copy=False).data)
        yield value, TensorData(shape=each.shape, file=into.name, start=start)


async def take(
    house: House, caller: Caller, wanted: Mapping[str, Reference], most: int
) -> dict[Reference, TensorData]:
    """The numbers of tensors that a request carries to the engine itself.

    Args:
        house: where they are kept.
        caller: whose project's they are.
        wanted: by the fields that take them.
        most: bytes of all of them together, as float32.

    Raises:
        InvalidRequest: one is not there, or they are too large; names the field.
        StorageError: one cannot be read.
    """
    digests = {ref.sha256 for ref in wanted.values()}
    found = {} if caller.anonymous else await house.office.artifacts.find(caller.project_id, digests)
    tensors: dict[Reference, Needed] = {}
    for param, ref in wanted.items():
        known = found[ref.sha256].tensors if ref.sha256 in found else None
        shapes = None if known is None else {name: tensor.shape for name, tensor in known.items()}
        name = tensor_of(ref, shapes, param)
        tensors[ref] = Needed(ref.sha256, name, (shapes or {})[name], param)
        total = 4 * sum(math.prod(each.shape) for each in tensors.values())
        if total > most:
            raise InvalidRequest(
                f"The artifacts take {total} bytes as float32, and {most} are the most here; take smaller "
                "ones, or ask for fewer sequences.",
                param=param,
                code="plan_too_large",
            )
    return await asyncio.to_thread(lambda: {ref: _read(each, found) for ref, each in tensors.items()})


def _read(needed: Needed, found: Mapping[str, Artifact]) -> TensorData:
    artifact = found[needed.sha256]
    pieces = artifact.tensors[needed.tensor].numbers(artifact.content.read)
    data = b"".join(piece.astype("<f4", copy=False).tobytes() for piece in pieces)
    return TensorData(shape=needed.shape, data=data)


def _require_project(caller: Caller) -> None:
    if caller.anonymous:
        raise Forbidden("Artifacts belong to a project; send a key.")


async def _require_keeper(house: House, caller: Caller) -> None:
    """Pass who may see and delete what their project keeps, also once its grant has ended.

    Raises:
        Forbidden, MissingScope: no key, or one that was narrowed to something else.
    """
    _require_project(caller)
    if caller.scopes is not None and not caller.scopes.intersection(INSIDE):
        (await house.entitlements.of(caller)).require(INSIDE[0])
