"""`transom watch`: whether a server still serves what it served before, from its answers alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import httpx2
import typer
from pydantic import ValidationError
from rich.text import Text

from transom.cli import output
from transom.cli.output import ExitCode, exit_code, exit_on_error
from transom.client import RateLimited, ServerUnreachable, UnexpectedReply
from transom.client.connection import Connection
from transom.client.watching import baseline as baselines
from transom.client.watching.asking import Asker
from transom.client.watching.baseline import Baseline, Form, Method, Plan
from transom.client.watching.looking import (
    Finding,
    PromptEvidence,
    default_prompts,
    take_baseline,
    take_look,
)
from transom.errors import EngineUnavailable, InvalidRequest, NotFound, TransomError

ALPHA, LOOKS, BEFORE, AFTER, MAX_TOKENS = 0.001, 100, 20, 6, 32
"""What a baseline is taken with, where nothing else is said."""

_USUAL = {"alpha": ALPHA, "looks": LOOKS, "before": BEFORE, "after": AFTER, "tolerance": 0.0}

_TIMEOUT = httpx2.Timeout(120, connect=5)
"""Answers are short; one that takes longer is asked for again."""

_SHOWN = 40
"""Characters of a text that are shown."""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(watch)


@exit_on_error
def watch(  # noqa: PLR0913, PLR0917  # one for each option
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Any OpenAI-compatible API, such as https://host/v1.")
    ],
    model: Annotated[str, typer.Option(help="Its name there.")],
    baseline: Annotated[
        Path, typer.Option(dir_okay=False, help="The file to compare with; made by the first run.")
    ],
    method: Annotated[
        Method | None,
        typer.Option(help="What to compare. Left out: logprobs, and text where a server gives none."),
    ] = None,
    every: Annotated[
        float | None, typer.Option(min=1, help="Look again and again, after so many seconds.")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help=f"Largest chance of any false alarm over all looks. [default: {ALPHA}]"),
    ] = None,
    looks: Annotated[
        int | None,
        typer.Option(help=f"Looks that share alpha; then a new baseline is due. [default: {LOOKS}]"),
    ] = None,
    rounds: Annotated[int | None, typer.Option(help=f"Rounds of a look. [default: {AFTER}]")] = None,
    baseline_rounds: Annotated[
        int | None, typer.Option(help=f"Rounds of the baseline. [default: {BEFORE}]")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Ask this in each round. May be given several times.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help=f"Of an answer, where texts are compared. [default: {MAX_TOKENS}]")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Nats that a mean logprob may move without counting. [default: 0]")
    ] = None,
    spread: Annotated[float, typer.Option(min=0, help="Spread a sample's rounds over these seconds.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Requests in flight at once.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print each look as a line of JSON.")] = False,
    api_key: Annotated[
        str | None,
        typer.Option(help="Your key. Others on this machine may see it here: prefer TRANSOM_API_KEY."),
    ] = None,
) -> None:
    """Tell from a server's answers whether it still serves the same. Ends with 1 if it does not."""
    fixed = _Fixed(
        method=method,
        alpha=alpha,
        looks=looks,
        after=rounds,
        before=baseline_rounds,
        prompts=tuple(prompt) if prompt else None,
        max_tokens=max_tokens,
        tolerance=tolerance,
    )
    connection = _connection(url, api_key)
    with _http(connection) as http, _told_apart():
        watcher = _Watcher(http, model, baseline, concurrency=concurrency, spread=spread, as_json=as_json)
        # Asked to go on until interrupted, this is how it ends.
        with suppress(KeyboardInterrupt):
            if not baseline.exists():
                watcher.begin(fixed)
                if every is None:
                    return
                time.sleep(every)
            watcher.check(fixed)
            if every is None:
                watcher.look()
            else:
                watcher.keep_looking(every)
        if watcher.changed:
            raise typer.Exit(ExitCode.NO)


@contextmanager
def _told_apart() -> Iterator[None]:
    """1 says that something changed, and nothing else does: no wrong name, and no server that is busy."""
    try:
        yield
    except TransomError as error:
        if exit_code(error) is not ExitCode.NO:
            raise
        if isinstance(error, NotFound):
            raise InvalidRequest(error.message) from None
        raise UnexpectedReply(error.message) from None


def _connection(url: str, api_key: str | None, environ: Mapping[str, str] = os.environ) -> Connection:
    """The address and its key: an OpenAI key goes to OpenAI, or to what OPENAI_BASE_URL names."""
    connection = Connection.find(url, api_key, environ)
    own = environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
    if api_key is None and environ.get("OPENAI_API_KEY"):
        theirs = Connection.find(own, environ["OPENAI_API_KEY"], {})
        if theirs.base_url == connection.base_url:
            return theirs
    return connection


@dataclass(frozen=True, slots=True)
class _Fixed:
    """What the command line says of what a baseline fixes; None where it says nothing."""

    method: Method | None
    alpha: float | None
    looks: int | None
    after: int | None
    before: int | None
    prompts: tuple[str, ...] | None
    max_tokens: int | None
    tolerance: float | None

    def plan(self, form: Form) -> Plan:
        """The plan of a new baseline.

        Raises:
            InvalidRequest: a number is out of its range, or no change could be noticed.
        """
        given = {
            name: value for name, value in asdict(self).items() if value is not None and name != "method"
        }
        usual = {"prompts": default_prompts(form), "max_tokens": MAX_TOKENS} | _USUAL
        try:
            plan = Plan(form=form, **usual | given)
        except ValidationError as error:
            first = error.errors()[0]
            option = _option(str(first["loc"][0]))
            raise InvalidRequest(f"--{option}: {first['msg']}.", param=option) from error
        plan.check()
        return plan

    def check(self, path: Path, plan: Plan) -> None:
        """See that it is what the baseline was taken with.

        Raises:
            InvalidRequest: it is not.
        """
        for name, value in asdict(self).items():
            own = plan.form.method if name == "method" else getattr(plan, name)
            if value is not None and value != own:
                option = _option(name)
                raise InvalidRequest(
                    f"{path} was taken with --{option} {_spelled(own)}, not {_spelled(value)}. "
                    "Leave the option out, or take a new baseline into another file.",
                    param=option,
                )


def _http(connection: Connection) -> httpx2.Client:
    return httpx2.Client(**connection.options(_TIMEOUT))


class _Watcher:
    """Takes the baseline or a look, keeps it, and says what came of it."""

    def __init__(
        self,
        http: httpx2.Client,
        model: str,
        path: Path,
        *,
        concurrency: int,
        spread: float,
        as_json: bool,
    ) -> None:
        self.changed = False
        self._http = http
        self._model = model
        self._path = path
        self._concurrency = concurrency
        self._spread = spread
        self._as_json = as_json

    def begin(self, fixed: _Fixed) -> None:
        """Find out how the server wants to be asked, and take the baseline."""
        asker = self._asker()
        form, refused = asker.find_form(fixed.method)
        if refused is not None:
            output.note(f"No logprobs here: {refused} Comparing texts, which takes more tokens.")
        made = take_baseline(asker, fixed.plan(form), self._spread)
        baselines.write(self._path, made)
        _say_baseline(self._path, made, as_json=self._as_json)

    def check(self, fixed: _Fixed) -> None:
        """See that what was asked for is what the baseline was taken with.

        Raises:
            InvalidRequest: it is not.
        """
        kept = baselines.read(self._path)
        kept.check_of(str(self._http.base_url).rstrip("/"), self._model)
        fixed.check(self._path, kept.plan)

    def look(self) -> bool:
        """Look once; whether something changed, or no look is left."""
        kept = baselines.read(self._path)
        finding = take_look(self._asker(), kept, self._spread)
        # Kept before it is told: a look that was seen is a look that was spent. Another process may have
        # looked meanwhile, and its look counts too.
        baselines.write(self._path, baselines.read(self._path).after(finding.look))
        self.changed = finding.changed
        if self._as_json:
            output.write(json.dumps(finding.as_json(), ensure_ascii=False))
        else:
            _show(finding)
        if finding.number == kept.plan.looks:
            output.note("That was the last look of this baseline; move the file away to take a new one.")
        return self.changed or finding.number == kept.plan.looks

    def keep_looking(self, every: float) -> None:
        """Look until something changed or no look is left; a server that is away is waited for."""
        while True:
            try:
                if self.look():
                    return
            except (ServerUnreachable, EngineUnavailable, RateLimited) as error:
                output.note(error.message)
            time.sleep(every)

    def _asker(self) -> Asker:
        return Asker(
            self._http, self._model, concurrency=self._concurrency, sleep=time.sleep, say=output.note
        )


def _option(name: str) -> str:
    """The option that sets a field of a plan."""
    return {"after": "rounds", "before": "baseline-rounds", "prompts": "prompt"}.get(
        name, name.replace("_", "-")
    )


def _spelled(value: object) -> str:
    return " --prompt ".join(map(repr, value)) if isinstance(value, tuple) else str(value)


def _say_baseline(path: Path, made: Baseline, *, as_json: bool) -> None:
    plan = made.plan
    if as_json:
        said = {"baseline": str(path), "made": made.made, "method": plan.form.method}
        output.write(json.dumps(said | {"requests": made.requests, "tokens": made.tokens}))
        return
    rounds = f"{plan.before} rounds of {len(plan.prompts)} prompts"
    output.write(f"baseline taken: {rounds}, by {plan.form.method}, in {path}")
    output.note(
        f"{made.requests} requests, {made.tokens} tokens. The same command looks whether anything changed."
    )


def _show(finding: Finding) -> None:
    """The verdict, what it rests on, and what it cost."""
    word, style = ("CHANGED", "bold red") if finding.changed else ("no change", "bold green")
    plan, verdict = finding.plan, finding.verdict
    said = f"p = {verdict.p_value:.3g}, by {plan.form.method}; changed if at most {plan.alpha_of_a_look:.3g}"
    output.out.print(Text.assemble((word, style), "  ", said))
    unit = "nats" if plan.form.top else "discrepancy"
    rows = [[_quoted(each.prompt), f"{each.statistic:.3g}", _told(each)] for each in finding.prompts]
    output.write_rows(["prompt", unit, "before → now"], rows)
    if finding.announced is not None:
        before, after = ("; ".join(said) or "nothing" for said in finding.announced)
        output.note(f"What the server says of itself differs: {before} before, {after} now.")
    kind = "all" if verdict.exact else "drawn"
    output.note(
        f"look {finding.number} of {plan.looks}: a false alarm in any of them has a chance of at most "
        f"{plan.alpha:g} · {verdict.divisions} divisions, {kind} · "
        f"{finding.requests} requests, {finding.tokens} tokens"
    )


def _told(evidence: PromptEvidence) -> str:
    if evidence.before is None or evidence.after is None:
        moved = (f"{_quoted(each.token)} {each.before:.6f} → {each.after:.6f}" for each in evidence.moved)
        return "  ".join(moved) or "the same"
    if evidence.before == evidence.after:
        return "mostly the same" if evidence.statistic else "the same"
    start = _first_difference(evidence.before, evidence.after)
    before, after = (text[start : start + _SHOWN] for text in (evidence.before, evidence.after))
    return f"from character {start}: {_quoted(before)} → {_quoted(after)}"


def _first_difference(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
