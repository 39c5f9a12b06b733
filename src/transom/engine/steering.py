"""Sequences that are written to while tokens are generated: told apart from others, and watched at each step.

What a sequence is written with travels with it, so that it lives through the deaths of engines: the next one
computes its positions again, with the same writes and to the same bits.
"""

from __future__ import annotations

from transom.engine.core import Engine
from transom.engine.messages import Output
from transom.errors import PlanFailed
from transom.internals.compile import Shapes, compile_changes
from transom.internals.taps import Taps
from transom.schema.changes import Changes
from transom.schema.generation import SequenceRequest

OWNER = "transom"
"""The field of a request that its writes stand in."""


class Steering:
    """Puts sequences under writes.

    Args:
        engine: computes.
        shapes: of the model's points.
    """

    def __init__(self, engine: Engine, shapes: Shapes) -> None:
        self._engine = engine
        self._shapes = shapes
        self._taps: dict[str, Taps] = {}
        self._refusals: list[Output] = []

    @property
    def idle(self) -> bool:
        """Whether nobody has yet to hear of a refusal."""
        return not self._refusals

    def submit(self, request: SequenceRequest, changes: Changes, generated: tuple[int, ...]) -> None:
        """Queue a sequence; should its writes not fit, its end is among `refusals`."""
        name = request.sequence_id
        try:
            taps = self._compiled(request, changes)
        except PlanFailed as failed:
            self._refusals.append(_failed(name, failed))
        except Exception as error:  # noqa: BLE001  # whatever broke, it is this sequence's, and it must hear of it
            reason = f"{type(error).__name__}: {error}"
            self._refusals.append(Output(name, finish_reason="error", error=reason))
        else:
            self._taps[name] = taps
            self._engine.submit(request, generated, taps)

    def refusals(self) -> list[Output]:
        """Sequences that were not begun, each once."""
        found, self._refusals = self._refusals, []
        return found

    def checked(self, output: Output) -> Output:
        """The output, or the end of a sequence in which a write was not done: no token comes of that step."""
        taps = self._taps.get(output.sequence_id)
        if taps is None:
            return output
        if output.finish_reason is not None:
            del self._taps[output.sequence_id]
        try:
            taps.check(OWNER)
        except PlanFailed as failed:
            self.forget(output.sequence_id)
            self._engine.abort(output.sequence_id)
            return _failed(output.sequence_id, failed)
        return output

    def forget(self, name: str) -> None:
        """Nobody waits for a sequence any more; an unknown one is no error."""
        self._taps.pop(name, None)
        self._refusals = [output for output in self._refusals if output.sequence_id != name]

    def _compiled(self, request: SequenceRequest, changes: Changes) -> Taps:
        # Choices have noise of their own, as they have draws. No run of a plan is called by a number.
        key = f"{request.sampling.seed}/{request.choice}"
        return compile_changes(changes, self._shapes, OWNER, key)


def _failed(name: str, failed: PlanFailed) -> Output:
    return Output(name, finish_reason="error", error=failed.message, param=failed.param)
