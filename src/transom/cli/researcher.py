"""Commands for whoever asks: `ask`, `replay`, `record show`, `record list`, `models`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from transom.cli import output
from transom.cli.output import ExitCode, exit_on_error
from transom.client import Client, Scored, operations, verify_record
from transom.client.operations import Operation
from transom.client.types import ChatChunk, CompletionChunk, MeasuredToken
from transom.errors import InvalidRequest, TransomError
from transom.schema.record import RecordView, ReplayLevel, ReplayReport

BaseUrl = Annotated[str | None, typer.Option(help="The server's address; else TRANSOM_BASE_URL.")]
ApiKey = Annotated[
    str | None, typer.Option(help="Your key. Others on this machine may see it here: prefer TRANSOM_API_KEY.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the server's reply as it is.")]
RecordId = Annotated[str, typer.Argument(metavar="ID", help="A record's id, such as rec_01j….")]

_REPLAY_ENDS: dict[ReplayLevel, tuple[int, str]] = {
    "EXACT": (0, "bold green"),
    "WITHIN": (0, "bold yellow"),
    "OUTSIDE": (1, "bold red"),
    "UNREPLAYABLE": (2, "bold magenta"),
}
"""Status and style of each level."""

_MEASURES = ("entropy", "rank", "surprisal", "kl", "top_k_mass")


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    record = typer.Typer(no_args_is_help=True, help="Read records: what was asked, what was answered.")
    record.command("show")(record_show)
    record.command("list")(record_list)
    app.command()(ask)
    app.command()(replay)
    app.add_typer(record, name="record")
    app.command()(models)


@exit_on_error
def ask(  # noqa: PLR0913, PLR0917  # one for each option
    question: Annotated[str, typer.Argument(help="What to ask; with --raw, the text to continue.")],
    model: Annotated[
        str | None, typer.Option(help="Which model; may be left out where one is served.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message to go before the question.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    seed: Annotated[int | None, typer.Option(help="Left out, the server draws one.")] = None,
    joint_seed: Annotated[
        bool,
        typer.Option("--joint-seed", help="Draw with a seed that neither side picks."),
    ] = False,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens to generate.")] = None,
    top_logprobs: Annotated[
        int | None, typer.Option(help="Also show each token's logprob and this many alternatives.")
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            help="Also show this of each token: entropy, rank, surprisal, kl, or top_k_mass=K. "
            "May be given several times."
        ),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the text itself, without a chat template.")
    ] = False,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Ask a model, and get an answer that is on record."""
    options: dict[str, Any] = {"temperature": temperature, "seed": seed, "max_tokens": max_tokens}
    options |= _logprob_options(top_logprobs, raw=raw) | _measure_options(measure or ())
    with Client(base_url, api_key) as client:
        if joint_seed:
            options |= {"joint_seed": client.joint_seeds()[0]}
        if raw:
            if system is not None:
                raise InvalidRequest("--raw continues text, which has no place for --system.", param="system")
            prompt = (client.model(model).name, question, options)
            whole: Operation[Any] = operations.complete(*prompt)
            streamed: Operation[Any] = operations.stream_complete(*prompt)
        else:
            conversation = (client.model(model).name, _messages(question, system), options)
            whole, streamed = operations.chat(*conversation), operations.stream_chat(*conversation)
        if as_json:
            output.write_json(client.send(whole.with_text())[0])
        else:
            _show_answer(client.stream(streamed))


def _logprob_options(top_logprobs: int | None, *, raw: bool) -> dict[str, Any]:
    if top_logprobs is None:
        return {}
    return {"logprobs": top_logprobs} if raw else {"logprobs": True, "top_logprobs": top_logprobs}


def _measure_options(measures: Sequence[str]) -> dict[str, Any]:
    """`entropy` asks for it, and `top_k_mass=10` with that k; what there is, the server knows."""
    asked: dict[str, Any] = {}
    for measure in measures:
        name, given, k = measure.partition("=")
        if given and not k.isdecimal():
            raise InvalidRequest(f"{k!r} is no number; write top_k_mass=10.", param="measure")
        asked[name] = int(k) if given else True
    return {"measures": asked} if asked else {}


def _messages(question: str, system: str | None) -> list[dict[str, str]]:
    before = [] if system is None else [{"role": "system", "content": system}]
    return [*before, {"role": "user", "content": question}]


def _show_answer(chunks: Iterator[ChatChunk | CompletionChunk]) -> None:
    """The text as it arrives, then the tokens where they were asked for, then how to get it again."""
    scored: list[Scored] = []
    measured: list[MeasuredToken] = []
    last: ChatChunk | CompletionChunk | None = None
    finish: str | None = None
    try:
        for last in chunks:
            output.write(last.text, end="")
            for choice in last.choices:
                scored += choice.logprobs.scored if choice.logprobs else ()
                measured += choice.measures or ()
                finish = choice.finish_reason or finish
    finally:
        if last is not None:  # whatever ends the stream, the next line is not the answer's
            output.write("")
    if scored:
        output.write("")
        output.write_rows(["token", "logprob", "likeliest"], [_scored_row(token) for token in scored])
    if measured:
        names = [name for name in _MEASURES if getattr(measured[0], name) is not None]
        output.write("")
        output.write_rows(["token", *names], [_measured_row(token, names) for token in measured])
    if last is not None:
        output.note(_footer(last, finish))


def _scored_row(scored: Scored) -> list[str]:
    likeliest = "  ".join(f"{_quoted(token)} {logprob:.4f}" for token, logprob in scored.top)
    return [_quoted(scored.token), "" if scored.logprob is None else f"{scored.logprob:.4f}", likeliest]


def _measured_row(token: MeasuredToken, names: Sequence[str]) -> list[str]:
    values = [getattr(token, name) for name in names]
    return [_quoted(token.token), *(str(x) if isinstance(x, int) else f"{x:.4f}" for x in values)]


def _quoted(token: str) -> str:
    """A token in quotes, so that its spaces and line ends can be seen."""
    return json.dumps(token, ensure_ascii=False)


def _footer(last: ChatChunk | CompletionChunk, finish: str | None) -> str:
    parts = [last.record, f"seed {last.seed}"]
    if last.usage is not None:
        parts.append(f"{last.usage.prompt_tokens} + {last.usage.completion_tokens} tokens")
    if finish not in {None, "stop"}:
        parts.append(f"ended by {finish}")
    return " · ".join([*parts, _short(last.deployment), f"again: transom replay {last.record}"])


def _short(digest: str) -> str:
    """The beginning of a digest, enough to tell one from another by eye."""
    kind, _, digits = digest.rpartition(":")
    return f"{kind}:{digits[:12]}"


@exit_on_error
def replay(
    record_id: RecordId, as_json: AsJson = False, base_url: BaseUrl = None, api_key: ApiKey = None
) -> None:
    """Run a record again. Ends with 0 if it came out the same, 1 if not, 2 if it cannot be told."""
    with Client(base_url, api_key) as client:
        text, report = client.send(operations.replay(record_id).with_text())
    status, style = _REPLAY_ENDS[report.level]
    if as_json:
        output.write_json(text)
    else:
        said = "  ".join(_replay_details(report))
        output.out.print(Text.assemble((report.level, style), "  ", output.printable(said)))
    raise typer.Exit(status)


def _replay_details(report: ReplayReport) -> Iterator[str]:
    yield report.record
    yield f"{report.tokens} tokens in {report.elapsed_s:.2f} s"
    if report.reason is not None:
        yield report.reason
    if report.first_difference is not None:
        where = report.first_difference
        yield f"first difference: sequence {where.sequence}, token {where.position}"


@exit_on_error
def record_show(
    record_id: RecordId, as_json: AsJson = False, base_url: BaseUrl = None, api_key: ApiKey = None
) -> None:
    """Show a record whole, and check that it agrees with itself (1 if it does not)."""
    with Client(base_url, api_key) as client:
        text, view = client.send(operations.record(record_id).with_text())
    faults = verify_record(view)
    if as_json:
        output.write_json(text)
    else:
        output.write_sections(f"{view.id}  {view.status}", _sections(view))
    if faults:
        output.fail(f"This record does not agree with itself: {'; '.join(faults)}. Do not rely on it.")
        raise typer.Exit(ExitCode.NO)


def _sections(view: RecordView) -> list[tuple[str, str]]:
    try:
        predicate = view.statement["predicate"]
        return [
            ("record", _lines(_facts(view))),
            *_private_sections(view.openings, predicate),
            ("commitments", _lines(_commitments(view.digest, predicate))),
        ]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise TransomError("This record has a form that this version cannot show; use --json.") from error


def _private_sections(
    openings: dict[str, Any] | None, predicate: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    if openings is None:
        yield "request and answer", "destroyed, by deleting the key that sealed them; the statement stays"
        return
    yield "request", _request_text(openings)
    for text in _answer_texts(openings, predicate):
        yield "answer", text
    if openings.get("error"):
        yield "error", openings["error"]["text"]


def _facts(view: RecordView) -> Iterator[tuple[str, str]]:
    yield "created", view.created
    yield "project", f"{view.project}, its record no. {view.sequence}"
    yield "model", view.model
    yield "deployment", view.deployment
    yield "endpoint", view.endpoint
    randomness = view.statement["predicate"]["randomness"]
    yield "seed", f"{randomness['seed']} ({randomness['source']})"


def _request_text(openings: dict[str, Any]) -> str:
    body = json.loads(openings["request"]["json"])
    asked = body.pop("prompt", None)
    body.pop("messages", None)
    if openings.get("messages") is not None:
        turns = json.loads(openings["messages"]["json"])
        asked = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
    text = asked if isinstance(asked, str) else json.dumps(asked, ensure_ascii=False)
    return text + "\n\n" + json.dumps(body, ensure_ascii=False)


def _answer_texts(openings: dict[str, Any], predicate: dict[str, Any]) -> Iterator[str]:
    for opened, said in zip(openings["sequences"], predicate["output"], strict=True):
        yield f"{opened['text']['text']}\n\n{said['tokens']} tokens, ended by {said['finish_reason']}"


def _commitments(digest: str, predicate: dict[str, Any]) -> Iterator[tuple[str, str]]:
    request = predicate["request"]
    yield "body", request["body"]
    if request["messages"] is not None:
        yield "messages", request["messages"]
    for index, prompt in enumerate(request["prompts"]):
        yield f"prompt {index}", prompt
    for index, said in enumerate(predicate["output"]):
        yield f"tokens {index}", said["token_ids"]
        yield f"text {index}", said["text"]
    yield "digest", digest


def _lines(facts: Iterator[tuple[str, str]]) -> str:
    return "\n".join(f"{name:<11} {value}" for name, value in facts)


@exit_on_error
def record_list(
    limit: Annotated[int, typer.Option(min=1, max=100, help="Records on a page.")] = 20,
    after: Annotated[str | None, typer.Option(help="Cursor that the page before ended with.")] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """List your project's records, newest first."""
    with Client(base_url, api_key) as client:
        text, page = client.send(operations.records(after, limit).with_text())
    if as_json:
        output.write_json(text)
        return
    rows = [[each.id, each.created, each.status, each.model, each.endpoint] for each in page.data]
    output.write_rows(["record", "created", "status", "model", "endpoint"], rows)
    if page.after is not None:
        output.note(f"more: transom record list --limit {limit} --after {page.after}")


@exit_on_error
def models(as_json: AsJson = False, base_url: BaseUrl = None, api_key: ApiKey = None) -> None:
    """List the models served, each with the digest of its deployment."""
    with Client(base_url, api_key) as client:
        text, served = client.send(operations.models().with_text())
    if as_json:
        output.write_json(text)
        return
    rows = [[model.id, model.digest, str(model.max_model_len)] for model in served]
    output.write_rows(["model", "deployment", "context"], rows)
