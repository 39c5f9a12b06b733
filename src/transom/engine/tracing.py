"""Programs in the engine: their runs become sequences beside everybody else's, and their values a file.

A run is submitted once every value that it needs is there. Nothing of a program outlives the engine: when it
dies, the server gives the program to the next one, which arrives at the same bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from transom.engine.core import Engine
from transom.engine.gradients import Differentiator
from transom.engine.grading import Gradients
from transom.engine.lens import Lens, Look
from transom.engine.messages import Differentiated, Inbound, Output, Stats, Written
from transom.engine.steering import Steering
from transom.errors import PlanFailed
from transom.internals.compile import Shapes, Tapped, compile_run, value_of
from transom.internals.projection import Projection
from transom.internals.reductions import projection_of, reduced
from transom.internals.results import Writer
from transom.internals.room import Room
from transom.internals.sharing import Sharing
from transom.internals.values import Value, derive
from transom.schema.generation import FinishReason, SequenceRequest, TokenLogprob
from transom.schema.program import DeriveSpec, Generated, Program, ReadSpec, RunSpec, Traced, parts_of

_SEPARATOR = "/"


@dataclass(eq=False)
class _Trace:
    """A program that is being carried out."""

    program: Program
    values: dict[str, Value]
    room: Room
    """For what its runs read."""
    waiting: list[RunSpec]
    underived: list[DeriveSpec]
    running: dict[str, tuple[RunSpec, Tapped]] = field(default_factory=dict)
    generated: dict[str, list[TokenLogprob]] = field(default_factory=dict)
    ended: dict[str, FinishReason] = field(default_factory=dict)
    """Finish reasons, by run."""
    ungraded: list[RunSpec] = field(default_factory=list)
    """Runs whose gradients have not begun."""
    differentiating: set[str] = field(default_factory=set)
    looks: list[Look] = field(default_factory=list)
    """Values on their way through the lens."""
    shared: Sharing = field(default_factory=Sharing)

    is_due: bool = False
    """Whether it will be gone on with."""

    @property
    def is_stuck(self) -> bool:
        """Whether something of it still waits."""
        return bool(self.waiting or self.underived or self.ungraded)

    @property
    def trace_id(self) -> str:
        return self.program.trace_id

    def sequence_id(self, run: str) -> str:
        return f"{self.trace_id}{_SEPARATOR}{run}"

    def take_ready(self) -> list[RunSpec]:
        """The runs whose values are all there, which no longer wait."""
        ready = [run for run in self.waiting if self._has_all(run)]
        names = {run.name for run in ready}
        self.waiting = [run for run in self.waiting if run.name not in names]
        # Who begins at one layer runs together.
        return sorted(ready, key=self.shared.layer_of)

    def take_differentiable(self) -> list[RunSpec]:
        """The runs whose gradients can begin, which no longer wait for that."""
        ready = [run for run in self.ungraded if all(name in self.values for name in run.grad_needs)]
        self.differentiating |= {run.name for run in ready}
        self.ungraded = [run for run in self.ungraded if run.name not in self.differentiating]
        return ready

    def derive(self) -> None:
        """Make the derived values whose parts are all there."""
        left = []
        for spec in self.underived:
            if all(name in self.values for name in spec.of):
                self.values |= derive(spec, [self.values[name] for name in spec.of])
            else:
                left.append(spec)
        self.underived = left

    def _has_all(self, run: RunSpec) -> bool:
        return self.shared.is_ready(run) and all(name in self.values for name in run.needs)


class TracingEngine:
    """An engine that carries out programs too.

    Args:
        engine: computes.
        lens: applies the output matrix to rows.
        shapes: of the model's points.
        inbox: where the writer of files puts what it has finished, beside the server's messages.
        differentiator: computes gradients.
        restarts: whether sequences can begin in the middle of others.
    """

    def __init__(
        self,
        engine: Engine,
        lens: Lens,
        shapes: Shapes,
        inbox: SimpleQueue[Inbound],
        *,
        differentiator: Differentiator,
        restarts: bool = False,
    ) -> None:
        self._engine = engine
        self._restarts = restarts
        self._lens = lens
        self._shapes = shapes
        self._steering = Steering(engine, shapes)
        self._gradients = Gradients(differentiator, inbox.put)
        self._writer = Writer(lambda traced: inbox.put(Written(traced)))
        self._traces: dict[str, _Trace] = {}
        self._by_sequence: dict[str, tuple[_Trace, RunSpec]] = {}
        self._tasks: deque[tuple[_Trace, Callable[[], None]]] = deque()
        """What is left to do between steps, a bounded piece each."""
        self._is_lens_next = True
        self._ends: list[Traced] = []
        self._writing: dict[str, tuple[Path, bool]] = {}
        """Results that are being written, by program, and whether anybody still waits for them."""

    @property
    def idle(self) -> bool:
        """Whether a step would do nothing."""
        is_done = self._engine.idle and self._steering.idle
        return is_done and not self._tasks and not self._ends and not self._lens.busy

    @property
    def is_busy_elsewhere(self) -> bool:
        """Whether something is computed or written beside the steps, which will be heard of."""
        return bool(self._writing) or self._gradients.busy

    def stats(self) -> Stats:
        """See `Engine.stats`."""
        return self._engine.stats()

    def submit(self, request: SequenceRequest, generated: tuple[int, ...] = ()) -> None:
        """See `Engine.submit`; the sequence may be written to."""
        if request.changes is None:
            self._engine.submit(request, generated)
        else:
            self._steering.submit(request, request.changes, generated)

    def submit_program(self, program: Program) -> None:
        """Begin a program; one `Traced` tells of its end."""
        room = Room(Path(program.file).parent, program.spilled)
        trace = _Trace(program, {}, room, list(program.runs), list(program.derive))
        trace.ungraded = [run for run in program.runs if run.grad is not None]
        if self._restarts:
            trace.shared = Sharing.of(program.runs, self._shapes)
        self._traces[program.trace_id] = trace
        self._attempt(trace, lambda: self._begin(trace))

    def _begin(self, trace: _Trace) -> None:
        # Whoever left before it began took the file of its tensors along.
        trace.values |= {name: Value.of(tensor) for name, tensor in trace.program.tensors.items()}
        trace.room.open()
        self._go_on(trace)

    def abort(self, name: str) -> None:
        """Forget a sequence or a program; an unknown one is no error."""
        trace = self._traces.get(name)
        if trace is not None:
            self._forget(trace)
        elif name in self._writing:
            self._writing[name] = self._writing[name][0], False
        else:
            self._steering.forget(name)
            self._engine.abort(name)

    def step(self) -> tuple[list[Output], list[Traced]]:
        """A step of the engine and a piece of what programs have left to do; the news of both."""
        others = self._steering.refusals()
        for output in self._engine.step():
            found = self._by_sequence.get(output.sequence_id)
            if found is None:
                others.append(self._steering.checked(output))
            else:
                self._hear(*found, output)
        # In turns, where there is both: either can be long.
        self._is_lens_next = self._lens.busy and not self._is_lens_next
        if self._tasks and not self._is_lens_next:
            trace, task = self._tasks.popleft()
            if trace.trace_id in self._traces:
                self._attempt(trace, task)
        else:
            self._lens.work()
        ends, self._ends = self._ends, []
        return others, ends

    def _attempt(self, trace: _Trace, task: Callable[[], None]) -> None:
        """Do something for a program, which fails alone if it cannot be done."""
        try:
            task()
        except PlanFailed as failed:
            self._fail(trace, failed.message, failed.param)
        except OSError as error:
            reason = f"there is no room on disk for what it reads: {error.strerror or error}"
            self._fail(trace, reason, None, is_full=True)
        except Exception as error:  # noqa: BLE001  # whatever broke, it is this program's, and it must hear of it
            self._fail(trace, f"{type(error).__name__}: {error}", None)

    def _fail(self, trace: _Trace, reason: str, param: str | None, *, is_full: bool = False) -> None:
        self._forget(trace)
        self._ends.append(Traced(trace_id=trace.trace_id, error=reason, param=param, is_full=is_full))

    def _forget(self, trace: _Trace) -> None:
        for run in trace.running:
            self._by_sequence.pop(trace.sequence_id(run), None)
            self._engine.abort(trace.sequence_id(run))
        for look in trace.looks:
            look.is_wanted = False
        self._tasks = deque(each for each in self._tasks if each[0] is not trace)
        self._gradients.forget(trace.trace_id)
        self._traces.pop(trace.trace_id, None)

    def written(self, traced: Traced) -> bool:
        """A result was written; whether anybody waits for it. Where nobody does, it is deleted."""
        file, is_wanted = self._writing.pop(traced.trace_id)
        if not is_wanted:
            file.unlink(missing_ok=True)
        return is_wanted

    def _soon(self, trace: _Trace) -> None:
        """Go on with a program before long: once, whatever has come to it meanwhile."""
        if not trace.is_due:
            trace.is_due = True
            self._tasks.append((trace, lambda: self._go_on(trace)))

    def _go_on(self, trace: _Trace) -> None:
        """Begin every run that can begin; end where none is left."""
        trace.is_due = False
        trace.derive()
        for run in trace.take_ready():
            tapped = compile_run(run, self._shapes, trace.values, run.sampling.seed, trace.room)
            tapped = replace(tapped, taps=trace.shared.prepared(run, tapped.taps, self._shapes))
            name = trace.sequence_id(run.name)
            request = SequenceRequest(
                sequence_id=name,
                prompt_token_ids=run.token_ids,
                sampling=run.sampling,
                project=trace.program.project,
                priority=trace.program.priority,
            )
            trace.running[run.name] = run, tapped
            self._by_sequence[name] = trace, run
            self._engine.submit(request, taps=tapped.taps)
        for run in trace.take_differentiable():
            self._gradients.begin(trace.trace_id, run, trace.values)
        if (
            not trace.running
            and not trace.looks
            and not trace.differentiating
            and not any(other is trace for other, _ in self._tasks)
        ):
            if trace.is_stuck:
                raise RuntimeError("the program needs what it does not make")
            self._end(trace)

    def take_gradients(self, message: Differentiated) -> None:
        """The gradients of a run are there; those of a program that is gone are let go."""
        found = self._gradients.take(message)
        trace = self._traces.get(message.trace_id)
        if trace is None:
            return
        trace.differentiating.discard(message.run)
        if message.error is not None:
            param = f"runs.{message.run.partition('@')[0]}.grad"
            self._fail(trace, f"{param}: {message.error}", param)
            return
        trace.values |= found
        self._attempt(trace, lambda: self._go_on(trace))

    def _hear(self, trace: _Trace, run: RunSpec, output: Output) -> None:
        trace.generated.setdefault(run.name, []).extend(output.tokens)
        if output.finish_reason is None:
            return
        del self._by_sequence[output.sequence_id]
        _, tapped = trace.running.pop(run.name)
        if output.finish_reason == "error":
            self._fail(trace, f"runs.{run.origin}: {output.error}", f"runs.{run.origin}")
            return
        trace.ended[run.name] = output.finish_reason
        self._attempt(trace, lambda: self._collect(trace, run, tapped))

    def _collect(self, trace: _Trace, run: RunSpec, tapped: Tapped) -> None:
        """Make values of what a run has read; a lens is left for later, piece by piece."""
        tapped.taps.check(f"runs.{run.origin}")
        trace.shared.collect(run, tapped.taps)
        tokens = trace.generated.get(run.name, [])
        computed = len(run.token_ids) + max(0, len(tokens) - 1)
        trace.values |= _of_generated(run, tokens)
        for spec in run.reads:
            value = value_of(spec, tapped.reads[spec.name], computed)
            if spec.reduce == "unembed":
                self._through_lens(trace, run, spec, value)
            elif spec.is_matrix:
                self._project(trace, f"{run.name}.{spec.name}", projection_of(run, spec, value, trace.values))
            else:
                trace.values[f"{run.name}.{spec.name}"] = reduced(run, spec, value, trace.values)
        self._soon(trace)

    def _through_lens(self, trace: _Trace, run: RunSpec, spec: ReadSpec, value: Value) -> None:
        def done(found: dict[str, Value]) -> None:
            trace.values |= found
            trace.looks.remove(look)
            self._soon(trace)

        look = self._lens.look(spec, value, f"{run.name}.{spec.name}", trace.room, done)
        trace.looks.append(look)

    def _project(self, trace: _Trace, name: str, projection: Projection) -> None:
        """Go on with a projection: a piece of it in each turn."""
        if projection.work():
            trace.values[name] = projection.value
            self._soon(trace)
        else:
            self._tasks.append((trace, lambda: self._project(trace, name, projection)))

    def _end(self, trace: _Trace) -> None:
        """Hand the result to the writer."""
        returned = dict(_returned(trace.program.returns, trace.values))
        generated = tuple(
            Generated(
                name=run.name, tokens=tuple(trace.generated[run.name]), finish_reason=trace.ended[run.name]
            )
            for run in trace.program.runs
            if trace.generated.get(run.name)
        )
        del self._traces[trace.trace_id]
        name, file = trace.trace_id, Path(trace.program.file)
        self._writing[name] = file, True
        self._writer.write(
            file,
            returned,
            Traced(trace_id=name, generated=generated),
            part_bytes=trace.program.part_bytes,
            is_wanted=lambda: self._writing[name][1],
        )


def _of_generated(run: RunSpec, tokens: list[TokenLogprob]) -> dict[str, Value]:
    if not run.sampling.max_tokens:
        return {}
    ids = np.array([token.token_id for token in tokens], np.int32)
    logprobs = np.array([token.logprob for token in tokens], np.float32)
    return {f"{run.name}.tokens": Value(ids, ("step",)), f"{run.name}.logprobs": Value(logprobs, ("step",))}


def _returned(names: tuple[str, ...], values: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    """What was asked for; of a value with two parts, both."""
    for name in names:
        for part in parts_of(name):
            if part in values:
                yield part, values[part]
