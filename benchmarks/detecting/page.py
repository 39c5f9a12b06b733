"""The page of detection, `docs/reference/detection.md`, out of the rows in `benchmarks/results`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.load.figures import Figures
from benchmarks.load.page import NOTE, describe
from benchmarks.load.rows import Row, read_all

SCENARIO = "detection"

_INTRODUCTION = """\
What an operator might do other than they say, and whether it is found: by replaying the record on an honest
server of the deployment that it names, or from outside, by numbers, the log and witnesses. The last columns
of answers are of a liar who runs the honest model beside, and puts its logprobs into the record: what is left
is that other tokens would have been drawn.

- *found*: of so many trials. Each is one record of so many tokens, or one look at the log.
- *tokens*: up to the first that shows it, the median of those found and the most.
- *false alarms*: the same of as many honest ones, which are in no other way different.

Small changes of the weights move a logprob at once, and seldom another token: a liar who fakes logprobs is
found by tokens only, and the more of them the surer. What is not found in one record is found in several.
"""

_REPRODUCE = """\
## Reproduce it

```text
python benchmarks/detection.py .transom/models/smollm2-135m-instruct --homes /tmp/lies --keep
```

It makes the altered models and starts the servers itself. What is found with nothing but an API's answers,
without records, is shown by `benchmarks/watch.py`: see
[notice a changed model](../howto/notice-a-changed-model.md).
"""


def detection() -> Iterator[str]:
    """`detection.md`."""
    yield from page(read_all())


def page(rows: Sequence[Row]) -> Iterator[str]:
    """The page for some rows, the oldest first; those of other scenarios are left out."""
    yield from ("# Detection", "", NOTE, "", _INTRODUCTION)
    newest: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row.scenario == SCENARIO:
            newest[describe(row.machine), row.settings["lie"]] = row
    for machine in dict.fromkeys(machine for machine, _ in newest):
        yield from (f"## {machine}", "")
        yield from _tables([row for (mine, _), row in newest.items() if mine == machine])
    yield from (_REPRODUCE,)


def _tables(rows: Sequence[Row]) -> Iterator[str]:
    answers = [row for row in rows if "found_with_faked_logprobs" in row.median]
    yield "| lie about an answer | found | tokens | with faked logprobs | tokens | false alarms |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in answers:
        figures = row.median
        yield (
            f"| {row.settings['lie']} | {_of(row, 'found')} | {_needed(figures, 'tokens')} "
            f"| {_of(row, 'found_with_faked_logprobs')} | {_needed(figures, 'tokens_with_faked_logprobs')} "
            f"| {_of(row, 'false_alarms')} |"
        )
    yield from ("", "| lie about the log | found | false alarms |", "| --- | --- | --- |")
    for row in rows:
        if "found" in row.median and row not in answers:
            yield f"| {row.settings['lie']} | {_of(row, 'found')} | {_of(row, 'false_alarms')} |"
    yield ""
    for row in rows:
        if "answers" in row.median:
            count, alarms = row.median["answers"], row.median["false_alarms"]
            yield f"Of {count:,.0f} honest answers under full load, {alarms:.0f} were found to be lies."
    if answers:
        row = answers[-1]
        tokens, model = row.settings["tokens"], row.server["model"]
        yield f"Answers have {tokens} tokens, of {model} in {row.server['dtype']}. Commit {row.commit[:9]}."
    yield ""


def _of(row: Row, name: str) -> str:
    return f"{row.median[name]:.0f} of {row.settings['trials']}"


def _needed(figures: Figures, name: str) -> str:
    return f"{figures[name]:g}, at most {figures[f'{name}_most']:g}" if name in figures else ""
