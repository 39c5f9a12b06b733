"""Writes of a completion or a chat, against the model at hand: what is changed in each of its sequences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, TypeAlias

from transom.backends.base import Backend
from transom.errors import InvalidRequest
from transom.schema.changes import GLOBAL, Changes, SiteSpec, TensorData, WriteSpec
from transom.schema.plans.refs import Artifact
from transom.schema.plans.tensors import Inline
from transom.schema.plans.writes import Write
from transom.schema.program import ModelPoint, ReadSpec, RunSpec
from transom.services.exposing import matrices_of
from transom.services.metering import Work
from transom.services.planning.fitting import check_value
from transom.services.planning.forms import Form
from transom.services.planning.positions import Line
from transom.services.planning.resolved import Resolved
from transom.services.planning.siting import NO_CELL, Sites
from transom.services.planning.telling import numbers_told

FIELD = "transom.write"

MAX_BYTES = 64 << 20
"""Most bytes of tensors of all sequences of one request together; each holds its own."""


@dataclass(frozen=True, slots=True)
class Steering:
    """The writes of one request."""

    by_prompt: tuple[Changes, ...]
    manifest: list[dict[str, Any]]
    """What is on record of each write: as it was asked for, with the digest of a tensor in its place."""


Given: TypeAlias = Mapping[Artifact, TensorData]
"""The numbers of the artifacts that writes take."""


def artifacts_of(writes: Sequence[Write]) -> dict[str, Artifact]:
    """The artifacts that writes take, by the fields that do."""
    return {
        f"{FIELD}.{index}.value": use.target
        for index, write in enumerate(writes)
        for use in write.refs()
        if isinstance(use.target, Artifact)
    }


def steer(
    backend: Backend,
    writes: Sequence[Write],
    given: Given,
    prompts: Sequence[tuple[int, ...]],
    most: int,
    candidates: int,
) -> Steering | None:
    """What becomes of writes in each prompt's sequences; None where there are none.

    Args:
        backend: of the model.
        writes: checked as far as no model is needed.
        given: all of `artifacts_of`.
        prompts: as they were rendered.
        most: tokens to generate, at most.
        candidates: sequences drawn from each prompt.

    Raises:
        InvalidRequest: the model has not what is asked for, or it would be too large; names the field.
    """
    if not writes:
        return None
    values = [_value(write, given) for write in writes]
    steered = _Steered(backend, writes, values, candidates)
    steered.check_bytes(len(prompts) * candidates)
    found = []
    for number, prompt in enumerate(prompts):
        try:
            found.append(steered.changes(Line(prompt, most)))
        except InvalidRequest as refused:
            if len(prompts) == 1:
                raise
            message = f"Of prompt {number}: {refused.message}"
            raise InvalidRequest(message, param=refused.param, code=refused.reason) from None
    return Steering(tuple(found), list(map(_told, writes, values)))


class _Steered:
    """Finds the places of one request's writes, prompt by prompt."""

    def __init__(
        self, backend: Backend, writes: Sequence[Write], values: Sequence[TensorData | None], candidates: int
    ) -> None:
        self._backend = backend
        self._writes = writes
        # An artifact that many writes take travels once.
        distinct = {id(value): value for value in values if value is not None}
        self._tensors = {f"tensor{index}": value for index, value in enumerate(distinct.values())}
        names = dict(zip(distinct, self._tensors, strict=True))
        self._names = [names.get(id(value)) for value in values]
        self._sites = Sites(backend, copies=candidates)

    def check_bytes(self, sequences: int) -> None:
        """Pass tensors that so many sequences may hold.

        Raises:
            InvalidRequest: they are too large.
        """
        total = sequences * sum(len(tensor.data) for tensor in self._tensors.values())
        if total > MAX_BYTES:
            raise InvalidRequest(
                f"The tensors of the writes take {total} bytes in {sequences} sequences, and {MAX_BYTES} are "
                "the most; ask for fewer sequences, or send smaller ones.",
                param=FIELD,
                code="plan_too_large",
            )

    def changes(self, line: Line) -> Changes:
        """What is changed in the sequences of one prompt."""
        specs = tuple(self._write(index, write, line) for index, write in enumerate(self._writes))
        return Changes(writes=specs, tensors=self._tensors, longest=line.prompt + line.most)

    def _write(self, index: int, write: Write, line: Line) -> WriteSpec:
        param = f"{FIELD}.{index}"
        spec = self._sites.write(write, line, NO_CELL, param)
        name = self._names[index]
        if name is None:
            return spec
        spec = replace(spec, value=name)
        check_value(spec, self._tensors[name].shape, line, self._backend.points, f"{param}.value")
        return spec


def told_under_writes(work: Work, by_prompt: Sequence[Changes]) -> dict[str, int]:
    """How many numbers a request tells of each place inside the model, at most.

    Logprobs of a model that is written to tell of what lies behind the writes, like the same numbers of the
    stream read in a plan: whoever knows rows of the output matrix works back from them.
    """
    backend, found = work.backend, Counter[str]()
    points, layers = backend.points, matrices_of(backend).layers
    end = _end_of_stream(points, layers)
    if end is None:
        return {}
    for prompt, changes in zip(work.prompts, by_prompt, strict=True):
        line = Line(tuple(prompt), work.sampling.max_tokens)
        read = ReadSpec(name="logits", sites=(replace(end, positions=tuple(range(line.end))),))
        run = RunSpec(
            name="run", token_ids=line.token_ids, sampling=work.sampling, reads=(read,), writes=changes.writes
        )
        forms = {"run.logits": Form((work.numbers_told(prompt),), ("",))}
        resolved = Resolved(runs=[run], returns=("run.logits",))
        for place, count in numbers_told(resolved, forms, points, layers).items():
            found[place] += work.candidates * count
    return dict(found)


def _end_of_stream(points: Sequence[ModelPoint], layers: int) -> SiteSpec | None:
    """What the output matrix is given, as near as there is a point."""
    for name, layer in (("final_norm", GLOBAL), ("resid_post", layers - 1)):
        if any(point.name == name and layer in point.layers for point in points):
            return SiteSpec(point=name, layer=layer, positions=())
    return None


def _value(write: Write, given: Given) -> TensorData | None:
    """The tensor that a write takes; None where it takes a number, or nothing."""
    match write.value:
        case Inline():
            return TensorData.of(write.value.array())
        case str():
            (use,) = write.refs()
            assert isinstance(use.target, Artifact)  # noqa: S101  # others are refused where it is checked
            return given[use.target]
        case _:
            return None


def _told(write: Write, tensor: TensorData | None) -> dict[str, Any]:
    told = write.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"value"})
    told["at"] = write.name.canonical
    if tensor is not None:
        digest = f"sha256:{sha256(tensor.data).hexdigest()}"
        told["value"] = {"shape": list(tensor.shape), "sha256": digest}
    elif write.value is not None:
        told["value"] = write.value
    return told
