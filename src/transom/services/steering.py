"""Writes of a completion or a chat, against the model at hand: what is changed in each of its sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from transom.backends.base import Backend
from transom.errors import InvalidRequest, UnsupportedParameter
from transom.schema.changes import Changes, TensorData, WriteSpec
from transom.schema.plans.tensors import Inline
from transom.schema.plans.writes import Write
from transom.services.fitting import check_value
from transom.services.positions import Line
from transom.services.siting import NO_CELL, Sites

FIELD = "transom.write"

MAX_BYTES = 64 << 20
"""Most bytes of tensors of all sequences of one request together; each holds its own."""


@dataclass(frozen=True, slots=True)
class Steering:
    """The writes of one request."""

    by_prompt: tuple[Changes, ...]
    manifest: list[dict[str, Any]]
    """What is on record of each write: as it was asked for, with the digest of a tensor in its place."""


def steer(
    backend: Backend, writes: Sequence[Write], prompts: Sequence[tuple[int, ...]], most: int, candidates: int
) -> Steering | None:
    """What becomes of writes in each prompt's sequences; None where there are none.

    Args:
        backend: of the model.
        writes: checked as far as no model is needed.
        prompts: as they were rendered.
        most: tokens to generate, at most.
        candidates: sequences drawn from each prompt.

    Raises:
        InvalidRequest: the model has not what is asked for, or it would be too large; names the field.
    """
    if not writes:
        return None
    taken = {index: _value(write, index) for index, write in enumerate(writes)}
    tensors = {_name(index): value for index, value in taken.items() if value is not None}
    _check_bytes(tensors, len(prompts) * candidates)
    steered = _Steered(backend, writes, tensors, candidates)
    found = []
    for number, prompt in enumerate(prompts):
        try:
            found.append(steered.changes(Line(prompt, most)))
        except InvalidRequest as refused:
            if len(prompts) == 1:
                raise
            message = f"Of prompt {number}: {refused.message}"
            raise InvalidRequest(message, param=refused.param, code=refused.reason) from None
    return Steering(tuple(found), [_told(write, taken[index]) for index, write in enumerate(writes)])


class _Steered:
    """Finds the places of one request's writes, prompt by prompt."""

    def __init__(
        self, backend: Backend, writes: Sequence[Write], tensors: dict[str, TensorData], candidates: int
    ) -> None:
        self._backend = backend
        self._writes = writes
        self._tensors = tensors
        self._sites = Sites(backend, copies=candidates)

    def changes(self, line: Line) -> Changes:
        """What is changed in the sequences of one prompt."""
        specs = tuple(self._write(index, write, line) for index, write in enumerate(self._writes))
        return Changes(writes=specs, tensors=self._tensors, longest=line.prompt + line.most)

    def _write(self, index: int, write: Write, line: Line) -> WriteSpec:
        param = f"{FIELD}.{index}"
        spec = self._sites.write(write, line, NO_CELL, param)
        name = _name(index)
        if name not in self._tensors:
            return spec
        spec = replace(spec, value=name)
        check_value(spec, self._tensors[name].shape, line, self._backend.points, f"{param}.value")
        return spec


def _name(index: int) -> str:
    return f"write{index}"


def _value(write: Write, index: int) -> TensorData | None:
    """The tensor that a write takes; None where it takes a number, or nothing."""
    match write.value:
        case Inline():
            return TensorData.of(write.value.array())
        case str():
            raise UnsupportedParameter(
                "Artifacts are not offered yet; send the tensor inline.", param=f"{FIELD}.{index}.value"
            )
        case _:
            return None


def _check_bytes(tensors: dict[str, TensorData], sequences: int) -> None:
    total = sequences * sum(len(tensor.data) for tensor in tensors.values())
    if total > MAX_BYTES:
        raise InvalidRequest(
            f"The tensors of the writes take {total} bytes in {sequences} sequences, and {MAX_BYTES} are the "
            "most; ask for fewer sequences, or send smaller ones.",
            param=FIELD,
            code="plan_too_large",
        )


def _told(write: Write, tensor: TensorData | None) -> dict[str, Any]:
    told = write.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"value"})
    told["at"] = write.name.canonical
    if tensor is not None:
        digest = f"sha256:{sha256(tensor.data).hexdigest()}"
        told["value"] = {"shape": list(tensor.shape), "sha256": digest}
    elif write.value is not None:
        told["value"] = write.value
    return told
