"""What a replay concludes, and how what came out is held against what was recorded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from transom.records.reading import RecordedSequence
from transom.records.statement import evidence_openings
from transom.schema.calibrations import Calibration
from transom.schema.generation import SamplingParams, SequenceResult
from transom.schema.openings import EVIDENCE
from transom.schema.record import Difference, Margins, ReplayLevel

ENDINGS = ("stop", "length")
"""How a sequence ends by itself."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a replay concluded; reason and place are None where nothing differs."""

    level: ReplayLevel
    reason: str | None = None
    place: Difference | None = None
    tokens: int = 0
    """Generated tokens that were compared."""
    differing: int = 0
    """Those in whose place another would have been drawn."""
    margins: Margins | None = None
    """Of those that were judged."""


_WORST_FIRST: tuple[ReplayLevel, ...] = ("OUTSIDE", "UNREPLAYABLE", "WITHIN", "EXACT")

_OTHERWISE = {
    "top": Finding("OUTSIDE", "TOP LOGPROBS"),
    "prompt_logprobs": Finding("OUTSIDE", "PROMPT LOGPROBS"),
    "measures": Finding("OUTSIDE", "MEASURES"),
    "prompt_measures": Finding("OUTSIDE", "PROMPT MEASURES"),
    "distributions": Finding("OUTSIDE", "DISTRIBUTIONS"),
    "prompt_distributions": Finding("OUTSIDE", "PROMPT DISTRIBUTIONS"),
}
"""What is concluded of a part of the evidence that comes out otherwise."""


def compare(
    index: int, recorded: RecordedSequence, again: SequenceResult, sampling: SamplingParams
) -> Finding | None:
    """Where a sequence came out differently; None if it did nowhere.

    Args:
        index: of the sequence, in its record.
        recorded: what the record says.
        again: what came of generating it again, or of judging what was generated.
        sampling: of the request.
    """
    for position, token in enumerate(recorded.token_ids):
        place = Difference(sequence=index, position=position)
        if position >= len(again.tokens) or again.tokens[position].drawn != token:
            return Finding("OUTSIDE", f"TOKEN at {position}", place)
        if again.tokens[position].logprob != recorded.logprobs[position]:
            return Finding("OUTSIDE", f"LOGPROB at {position}", place)
    count = len(recorded.token_ids)
    finding = _other_evidence(recorded, replace(again, tokens=again.tokens[:count]), sampling)
    if finding is not None:
        return replace(finding, place=Difference(sequence=index, position=0))
    if not _same_ending(recorded, again):
        return Finding("OUTSIDE", "ENDING", Difference(sequence=index, position=count))
    return None


def within(
    calibration: Calibration, recorded: Sequence[RecordedSequence], again: Sequence[SequenceResult]
) -> Finding:
    """Whether answers of another profile lie no further off than honest ones did when it was calibrated."""
    if any(each is not None for said in recorded for each in said.evidence.values()):
        # Other numbers were never calibrated, and must not pass beside tokens that were.
        return Finding("UNREPLAYABLE", "EVIDENCE")
    found = [
        _within(calibration, index, said, seen)
        for index, (said, seen) in enumerate(zip(recorded, again, strict=True))
    ]
    return min(found, key=lambda finding: _WORST_FIRST.index(finding.level))


def _within(
    calibration: Calibration, index: int, recorded: RecordedSequence, again: SequenceResult
) -> Finding:
    """The same of one sequence: none makes up for another."""
    count = len(recorded.token_ids)
    if not _same_ending(recorded, again):
        return Finding("OUTSIDE", "ENDING", Difference(sequence=index, position=count))
    margins = [token.verdict.margin for token in again.tokens[:count] if token.verdict is not None]
    pairs = zip(again.tokens, recorded.logprobs, strict=False)
    departure = calibration.departs(margins, [abs(token.logprob - logprob) for token, logprob in pairs])
    if departure is None:
        return Finding("WITHIN")
    place = Difference(sequence=index, position=0)
    return Finding("UNREPLAYABLE" if departure == "SHORT" else "OUTSIDE", departure, place)


def _other_evidence(
    recorded: RecordedSequence, again: SequenceResult, sampling: SamplingParams
) -> Finding | None:
    """That of the first part of the evidence that came out otherwise."""
    found = evidence_openings(sampling, again)
    for name, told in recorded.evidence.items():
        if told is not None and EVIDENCE[name](told) != EVIDENCE[name](found[name] or ()):
            return _OTHERWISE[name]
    return None


def _same_ending(recorded: RecordedSequence, again: SequenceResult) -> bool:
    if recorded.finish_reason not in ENDINGS:
        # Text that was held back when it broke off is not in the record.
        return again.text.startswith(recorded.text)
    ending = (recorded.token_ids, recorded.finish_reason, recorded.text)
    return ending == (again.token_ids, again.finish_reason, again.text)


def counted(finding: Finding, tokens: int, results: Iterable[SequenceResult]) -> Finding:
    """The finding, with what all the tokens of a record say together.

    Args:
        finding: where it differs first, or that it does not.
        tokens: that were generated.
        results: of judging them.
    """
    judged = [(token.token_id, token.verdict) for result in results for token in result.tokens]
    verdicts = [(known, verdict) for known, verdict in judged if verdict is not None]
    return replace(
        finding,
        tokens=tokens,
        differing=sum(known != verdict.token_id for known, verdict in verdicts),
        margins=Margins.of([verdict.margin for _, verdict in verdicts]),
    )
