"""A program in the engine's hands, seen from the server."""

from __future__ import annotations

import asyncio

from transom.engine.messages import SubmitProgram
from transom.errors import EngineUnavailable, PlanFailed, TransomError
from transom.schema.program import Program, Traced

_WAIT_FOR_ROOM = 60
"""Seconds after which others may have given room on disk back."""


class Errand:
    """One program, from when it was taken to its end; it lives through the deaths of engines."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.deaths = 0
        """Engines that died while it was with them."""
        self._end: asyncio.Future[Traced] = asyncio.get_running_loop().create_future()

    @property
    def sequence_id(self) -> str:
        """Name given by the service."""
        return self.program.trace_id

    def submission(self) -> SubmitProgram:
        """What a new engine has to know: all of it, for nothing of a program outlives an engine."""
        return SubmitProgram(self.program)

    def receive(self, traced: Traced) -> None:
        """The engine is done."""
        if not self._end.done():
            self._end.set_result(traced)

    def fail(self, error: TransomError) -> None:
        """Nothing will come, and this is why."""
        if not self._end.done():
            self._end.set_exception(error)

    async def end(self) -> Traced:
        """What came of it.

        Raises:
            PlanFailed: it could not be carried out.
            EngineUnavailable: the disk had no room for what it makes.
            TransomError: what `fail` was told.
        """
        traced = await self._end
        if traced.is_full:
            raise EngineUnavailable(
                f"The plan was not finished: {traced.error}. Ask for less, or tell the operator.",
                retry_after=_WAIT_FOR_ROOM,
            )
        if traced.error is not None:
            raise PlanFailed(traced.error, param=traced.param)
        return traced
