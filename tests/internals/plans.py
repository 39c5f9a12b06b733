"""Plans on a tiny model in this process: from JSON by the server's own way to the engine, and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors.numpy import load_file

from tests.engine.drive import load_tiny
from transom.api.errors import from_validation
from transom.backends.tokenizer import LocalTokenizer
from transom.engine.gradients import Differentiator
from transom.engine.messages import Differentiated, Written
from transom.engine.places import model_points
from transom.engine.tracing import TracingEngine
from transom.errors import PlanFailed
from transom.schema.deployment import Policy
from transom.schema.dimensions import Dimensions
from transom.schema.plan import Plan
from transom.schema.program import ModelPoint, Program, TensorData, Traced
from transom.services.tracing.traces import Task, prepare

MOST_STEPS = 20_000
MAX_MODEL_LEN = 96


@dataclass
class _Deployment:
    digest: str = "sha256:" + "0" * 64
    policy: Policy = field(default_factory=lambda: Policy(max_model_len=MAX_MODEL_LEN, max_top_logprobs=20))


@dataclass
class _Served:
    name: str = "tiny"
    deployment: _Deployment = field(default_factory=_Deployment)


@dataclass
class StandIn:
    """As much of a `Backend` as a plan is resolved against."""

    tokenizer: LocalTokenizer
    points: list[ModelPoint]
    dimensions: Dimensions
    served: _Served = field(default_factory=_Served)
    max_sequences: int = 64


class Machine:
    """A tiny model with all that stands between it and a plan; it is the house of one backend."""

    def __init__(self, root: Path, spool: Path, *, restarts: bool | None = None, **options: Any) -> None:
        self.tokenizer = LocalTokenizer(root)
        eos = tuple(self.tokenizer.eos_token_ids)
        self.loaded = load_tiny(root, **{"eos_token_ids": eos, "max_model_len": MAX_MODEL_LEN} | options)
        self.inbox: SimpleQueue[Written | Differentiated] = SimpleQueue()
        places = self.loaded.places
        self.engine = TracingEngine(
            self.loaded.engine,
            self.loaded.lens,
            places.shapes,
            self.inbox,
            differentiator=Differentiator(root, places.shapes),
            restarts=places.is_whole if restarts is None else restarts,
        )
        self.spool = spool
        self._backend = StandIn(self.tokenizer, model_points(places), self.loaded.dimensions)
        self._count = 0
        self.artifacts: dict[str, dict[str, np.ndarray]] = {}
        """By digest, their tensors by name."""

    def backend(self, _model: str | None) -> StandIn:
        return self._backend

    def prepare(self, content: Any) -> Task:
        """A plan as JSON, checked as the server checks it; raises `InvalidRequest`."""
        try:
            plan = Plan.model_validate(content)
        except ValidationError as error:
            raise from_validation(error.errors()) from None
        known = {
            digest: {name: tensor.shape for name, tensor in tensors.items()}
            for digest, tensors in self.artifacts.items()
        }
        return prepare(self, plan, known)

    def program(self, content: Any, project: str = "mine") -> Program:
        self._count += 1
        task, name = self.prepare(content), f"rec_{self._count}"
        brought = self._brought(task, self.spool / f"{name}.tensors")
        return task.program(name, project, self.spool / f"{name}.safetensors", brought)

    def _brought(self, task: Task, file: Path) -> dict[str, TensorData]:
        """The artifacts that a plan takes, as the server lays them out."""
        found = {}
        for value, needed in task.resolved.artifacts.items():
            start = file.stat().st_size if file.exists() else 0
            with file.open("ab") as into:
                into.write(self.artifacts[needed.sha256][needed.tensor].astype("<f4").tobytes())
            found[value] = TensorData(shape=needed.shape, file=str(file), start=start)
        return found

    def finish(self, *programs: Program) -> dict[str, Traced]:
        """Step until all of these have come to an end."""
        ends: dict[str, Traced] = {}
        wanted = {program.trace_id for program in programs}
        for _ in range(MOST_STEPS):
            if wanted <= ends.keys():
                return ends
            ends |= {traced.trace_id: traced for traced in self.news()}
        raise AssertionError("it hangs")

    def news(self) -> list[Traced]:
        """A step, or a message where there is nothing to do; the programs that ended by it."""
        if not self.engine.idle:
            return self.engine.step()[1]
        message = self.inbox.get(timeout=60)
        if isinstance(message, Written):
            return [message.traced] if self.engine.written(message.traced) else []
        self.engine.take_gradients(message)
        return []

    def run(self, content: Any) -> dict[str, np.ndarray]:
        """What comes of a plan; raises `InvalidRequest` or `PlanFailed`."""
        program = self.program(content)
        self.engine.submit_program(program)
        return self.values(program, self.finish(program)[program.trace_id])

    def values(self, program: Program, traced: Traced) -> dict[str, np.ndarray]:
        file = Path(program.file)
        try:
            if traced.error is not None:
                raise PlanFailed(traced.error, param=traced.param)
            found = load_file(file)
        finally:
            file.unlink(missing_ok=True)
            file.with_suffix(".tensors").unlink(missing_ok=True)
        assert {tensor.name: tensor.shape for tensor in traced.tensors} == {
            name: array.shape for name, array in found.items()
        }
        return found
