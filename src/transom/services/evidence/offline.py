"""Replaying records without the server that made them: with their model's weights at hand."""

from __future__ import annotations

from collections.abc import Sequence

from transom.access.keys.callers import Caller
from transom.schema.record import RecordView, ReplayReport
from transom.services.evidence.replay import judge, report
from transom.services.house import House

MOST = 256
"""Records that are replayed in the same steps."""


async def replay_files(house: House, views: Sequence[RecordView]) -> list[ReplayReport]:
    """Replay records that lie in files; nobody is charged.

    Args:
        house: that serves their model, with nothing else in it.
        views: what the files hold; their signatures are another question.

    Raises:
        EngineError: the engine could not answer; this says nothing about the records.
    """
    reports: list[ReplayReport] = []
    for start in range(0, len(views), MOST):
        part = views[start : start + MOST]
        # An operator's key, which has no limits and may do everything; the project has no artifacts here.
        findings = await judge(house, Caller(project_id="local", key_id="offline"), part)
        reports += [report(view.id, finding, 0.0) for view, finding in zip(part, findings, strict=True)]
    return reports
