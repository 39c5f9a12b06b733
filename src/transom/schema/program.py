"""A plan resolved against one model: what the engine is given, dense and without names of anybody's own.

Texts have become token ids, positions numbers, aliases canonical points, and a swap the read of another run.
Nothing here is checked again: whoever resolves a plan answers for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from transom.schema.changes import SiteSpec, TensorData, WriteSpec
from transom.schema.generation import FinishReason, Priority, SamplingParams, TokenLogprob

SPILLED_FROM = 1 << 20
"""Bytes from which on an array that a run reads lies in a file, in a program that spills."""

DType = Literal["float32", "int32"]

Reduction = Literal["none", "mean", "norm", "project", "unembed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPoint:
    """A point that a model has."""

    name: str
    layers: tuple[int, ...]
    """Those that have it; GLOBAL alone where it belongs to none."""
    heads: int
    """1 where its numbers are not divided into heads."""
    width: int
    """Numbers of a position, or of each head; 0 where that is the length of the sequence."""
    writable: bool = True
    """Unless it is one of those that are read only in every model."""
    differentiable: bool = False
    module: str = ""
    """Which input or output of transformers' own modules it is, with `{layer}` for the layer, if any."""
    reason: str = ""
    """Why no layer has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unembed:
    """The final norm and the output matrix, and what to keep of the logprobs over the vocabulary."""

    logits: bool = False
    """Whether rows are behind the final norm already, and logits are wanted and not logprobs."""
    topk: int = 0
    targets: tuple[int, ...] = ()
    """Token ids. Without either, everything is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSpec:
    """A value that a run leaves behind."""

    name: str
    sites: tuple[SiteSpec, ...]
    """Alike but for the layer."""
    layered: bool = False
    """Whether the value has an axis for the sites."""
    reduce: Reduction = "none"
    direction: str = ""
    """Of `project`: the name of a value."""
    is_matrix: bool = False
    """Whether that is [directions, width], each of them a direction."""
    unembed: Unembed = field(default_factory=Unembed)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One number that a run's predictions or values give."""

    kind: Literal["logit_diff", "logprob", "kl", "dot"]
    position: int = 0
    """Whose prediction."""
    tokens: tuple[int, ...] = ()
    site: SiteSpec | None = None
    """Of `dot`."""
    value: str = ""
    """Of `kl` the other run's logits, of `dot` the tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrtSpec:
    """What a gradient is taken with respect to."""

    name: str
    sites: tuple[SiteSpec, ...]
    """Alike but for the layer."""
    layered: bool = False
    others: tuple[str, ...] = ()
    """Values of another run at each of the sites: of `grad_x_delta`, and of `integrated` with a baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradSpec:
    """Gradients of a run."""

    metric: MetricSpec
    wrt: tuple[WrtSpec, ...]
    mode: Literal["grad", "grad_x_input", "grad_x_delta", "integrated"] = "grad"
    steps: int = 1
    """Of `integrated`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One sequence."""

    name: str
    token_ids: tuple[int, ...]
    sampling: SamplingParams
    reads: tuple[ReadSpec, ...] = ()
    writes: tuple[WriteSpec, ...] = ()
    grad: GradSpec | None = None

    @property
    def origin(self) -> str:
        """The run of the plan that it is; a cell of a sweep is named after its run."""
        return self.name.partition("@")[0]

    @property
    def needs(self) -> Iterator[str]:
        """The values that it refers to."""
        yield from (write.value for write in self.writes if write.value)
        yield from (read.direction for read in self.reads if read.direction)

    @property
    def grad_needs(self) -> Iterator[str]:
        """The values that its gradients refer to."""
        if self.grad is not None:
            if self.grad.metric.value:
                yield self.grad.metric.value
            for wrt in self.grad.wrt:
                yield from wrt.others

    @property
    def graded(self) -> int:
        """Rows of forwards that its gradients take; a backward is as much as two.

        An integrated gradient takes a forward to begin with, and both for each step.
        """
        if self.grad is None:
            return 0
        if self.grad.mode != "integrated":
            return 3 * len(self.token_ids)
        return len(self.grad.wrt) * (1 + 3 * self.grad.steps) * len(self.token_ids)


def parts_of(name: str) -> tuple[str, ...]:
    """What a value may be called, and its tensors where they are two."""
    return name, f"{name}.ids", f"{name}.logprobs", f"{name}.values"


DeriveOp = Literal["sub", "add", "scale", "mean", "stack", "dot", "normalize", "topk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeriveSpec:
    """A value made of others."""

    name: str
    """Of the value: `derive.…`, or that of what a sweep reads."""
    op: DeriveOp
    of: tuple[str, ...]
    """Names of values."""
    number: float = 0.0
    """Of `scale`, and the k of `topk`."""
    axis: str = ""
    """Of `mean`; empty for all."""
    among: bool = False
    """Whether a mean is among values of one shape, and not along axes."""
    grid: tuple[tuple[str, int], ...] = ()
    """Names and lengths of the axes that `stack` puts in front; empty for one, `stack`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A resolved plan. Its runs and derived values stand in an order in which each finds what it needs."""

    trace_id: str
    project: str
    priority: Priority = "interactive"
    runs: tuple[RunSpec, ...]
    derive: tuple[DeriveSpec, ...] = ()
    returns: tuple[str, ...]
    """Names of values: `run.read`, `run.tokens`, `run.logprobs`, `derive.name`, or the name of a tensor."""
    tensors: dict[str, TensorData] = field(default_factory=dict)
    """By name, which has no dot."""
    file: str
    """Where the result is to be written, as safetensors."""
    spilled: int = 0
    """Bytes of all arrays of at least `SPILLED_FROM` bytes, which lie on that file's disk; 0 for none."""
    part_bytes: int = 0
    """Size of the parts of the file whose digests are wanted; 0 for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One tensor of a result."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    sha256: str
    """Of its bytes, hexadecimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """Bytes of a result's file, behind those of the part before."""

    bytes: int
    sha256: str
    """Hexadecimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What a run generated."""

    name: str
    tokens: tuple[TokenLogprob, ...]
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """The end of a program."""

    trace_id: str
    error: str | None = None
    param: str | None = None
    """The field of the plan that the error is about."""
    is_full: bool = False
    """Whether the error is that the disk has no room, and not the plan's."""
    tensors: tuple[TensorInfo, ...] = ()
    """Of the file, in its order."""
    parts: tuple[FilePart, ...] = ()
    """Of the file, where the program asks for them."""
    generated: tuple[Generated, ...] = ()
