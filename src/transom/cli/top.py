"""`transom top`: what a server does, live, from its metrics."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Annotated

import httpx2
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from transom.cli import output
from transom.cli.output import exit_on_error
from transom.cli.readings import Reading, Span
from transom.client import ServerUnreachable
from transom.client.connection import Connection
from transom.client.failures import of_response, reaching
from transom.errors import AccessDenied, Forbidden

_WINDOW = 10
"""Readings over which rates and durations are taken: fewer flicker, more lag behind."""

_TIMEOUT = 5.0

Row = tuple[str, str]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(top)


@exit_on_error
def top(
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help="The server's address; else TRANSOM_BASE_URL.")
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Look twice, print what was between, and end.")
    ] = False,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks.")] = 1.0,
) -> None:
    """Watch a server: its queue, its speed, its cache, its troubles."""
    connection = Connection.find(url, api_key="")
    with _http(connection) as http:
        watch = _Watch(http, connection.base_url)
        watch.look()
        # Asked to go on until interrupted, this is how it ends.
        with suppress(KeyboardInterrupt):
            if once or not output.out.is_terminal:
                _print(watch, interval, once=once)
            else:
                _show(watch, interval)


def _http(connection: Connection) -> httpx2.Client:
    return httpx2.Client(**connection.options(_TIMEOUT))


class _Watch:
    """Looks at a server's metrics, and remembers the last few looks."""

    def __init__(self, http: httpx2.Client, base_url: str) -> None:
        self.base_url = base_url
        self._http = http
        self._readings: deque[Reading] = deque(maxlen=_WINDOW + 1)

    def look(self) -> None:
        """Take a reading.

        Raises:
            ServerUnreachable: nobody is there.
            AccessDenied: the server shows its metrics to its own machine alone.
            UnexpectedReply: what answers is no Transom server.
        """
        with reaching(self.base_url):
            reply = self._http.get("/metrics")
        if not reply.is_success:
            error = of_response(reply)
            # No key opens it: the message itself says what does.
            raise AccessDenied(error.message) if isinstance(error, Forbidden) else error
        self._readings.append(Reading.parse(reply.text, time.monotonic()))

    def spans(self) -> list[Span]:
        """What happened to each model since the oldest reading that is remembered."""
        first, last = self._readings[0], self._readings[-1]
        return [Span(first, last, model) for model in last.models]


def _print(watch: _Watch, interval: float, *, once: bool) -> None:
    """A frame, or one after the other, as lines of model, what and how much."""
    while True:
        time.sleep(interval)
        watch.look()
        output.write_rows(
            ("model", "", ""), [(span.model, *row) for span in watch.spans() for row in _rows(span)]
        )
        if once:
            return


def _show(watch: _Watch, interval: float) -> None:
    """One frame in the place of the other, until interrupted; a server that is away is waited for."""
    lost = ""
    with Live(_frame(watch, lost), console=output.out, auto_refresh=False, transient=False) as live:
        while True:
            time.sleep(interval)
            try:
                watch.look()
                lost = ""
            except ServerUnreachable as error:
                lost = error.message
            live.update(_frame(watch, lost), refresh=True)


def _frame(watch: _Watch, lost: str) -> Group:
    panels: list[RenderableType] = [_panel(span) for span in watch.spans()]
    if not panels:
        panels.append(Text("No model is served here."))
    note = Text(output.printable(lost), style="bold red") if lost else Text(watch.base_url, style="dim")
    return Group(*panels, note)


def _panel(span: Span) -> Panel:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    for what, how_much in _rows(span):
        grid.add_row(what, how_much)
    ready = bool(span.now("transom_model_ready"))
    return Panel(
        grid,
        title=Text(output.printable(span.model), style="bold"),
        subtitle="" if ready else "not ready",
        title_align="left",
        border_style="dim" if ready else "red",
    )


def _rows(span: Span) -> Iterator[Row]:
    """What is shown of a model."""
    running, waiting = span.now("transom_sequences_running"), span.now("transom_sequences_waiting")
    yield "sequences", f"{running:.0f} running · {waiting:.0f} waiting"
    yield "batch", " · ".join(_batch(span))
    yield "tokens/s", " · ".join(_tokens(span))
    yield "first token", _durations(span, "transom_time_to_first_token_seconds")
    yield "between tokens", _durations(span, "transom_inter_token_latency_seconds")
    yield "cache", " · ".join(_cache(span))
    yield "so far", " · ".join(_troubles(span))


def _batch(span: Span) -> Sequence[str]:
    sequences = span.ratio("transom_batch_sequences_total", of="transom_steps_total")
    rows = span.ratio("transom_batch_tokens_total", of="transom_steps_total")
    steps = span.rate("transom_steps_total")
    if sequences is None or rows is None:
        return ["no steps"]
    return [f"{sequences:.1f} sequences", f"{rows:.1f} tokens a step", f"{steps:.1f} steps/s"]


def _tokens(span: Span) -> Iterator[str]:
    for kind in ("prompt", "generated", "scored"):
        yield f"{span.rate('transom_tokens_total', kind=kind):.1f} {kind}"


def _durations(span: Span, name: str) -> str:
    shares = {"p50": 0.5, "p95": 0.95}
    found = {label: span.quantile(name, share) for label, share in shares.items()}
    parts = [f"{label} {_seconds(value)}" for label, value in found.items() if value is not None]
    return " · ".join(parts) or "none"


def _seconds(value: float) -> str:
    if math.isinf(value):
        return "off the scale"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _cache(span: Span) -> Iterator[str]:
    pages = span.now("transom_cache_pages")
    if pages:
        yield f"{span.now('transom_cache_used_pages') / pages:.0%} of {pages:.0f} pages held"
        yield f"{span.now('transom_cache_cached_pages') / pages:.0%} kept for later"
    found = span.ratio(
        "transom_prefix_cache_hit_tokens_total", of="transom_prefix_cache_queried_tokens_total"
    )
    yield "no prompts" if found is None else f"{found:.0%} of prompt tokens found"


def _troubles(span: Span) -> Iterator[str]:
    yield f"{span.now('transom_preemptions_total'):.0f} preemptions"
    yield f"{span.now('transom_engine_restarts_total'):.0f} restarts"
    yield f"{span.sum_now('transom_overload_refusals_total'):.0f} refused"
