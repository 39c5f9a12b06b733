"""Where the command line writes, and the status it ends with.

Answers go to stdout, everything said about them to stderr. What is piped is plain; what reaches a terminal
has colours, and no control characters of a model's or a server's choosing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import wraps
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from transom.client import RateLimited, ServerUnreachable, UnexpectedReply
from transom.errors import (
    AccessDenied,
    EngineBusy,
    EngineUnavailable,
    Forbidden,
    InvalidRequest,
    PayloadTooLarge,
    TransomError,
    Unauthenticated,
)

P = ParamSpec("P")
R = TypeVar("R")

out = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
"""For answers."""

err = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
"""For everything said about an answer."""


class ExitCode(IntEnum):
    """What a command's status means, the same for every command."""

    OK = 0
    NO = 1
    """The answer is no, or there is none."""
    USAGE = 2
    """Asked in a way that cannot be answered."""
    UNREACHABLE = 3
    """No Transom server could be talked to."""
    DENIED = 4
    """The key is missing, wrong, or does not allow this."""


_CONTROL = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def printable(text: str) -> str:
    """Text that a terminal shows and does not obey; tabs and line ends stay."""
    return text.translate(_CONTROL)


def write(text: str, *, end: str = "\n") -> None:
    """Answer with text: untouched into a pipe, `printable` on a terminal."""
    sys.stdout.write((printable(text) if out.is_terminal else text) + end)
    sys.stdout.flush()


def write_json(text: str) -> None:
    """Answer with JSON: as it arrived into a pipe, indented on a terminal."""
    write(json.dumps(json.loads(text), indent=2) if out.is_terminal else text)


def write_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Answer with rows: a table on a terminal, tab-separated lines without a head into a pipe."""
    if not out.is_terminal:
        for row in rows:
            write("\t".join(row))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):
        # The first column names the row, and is there to be copied: it stays in one piece.
        table.add_column(column, overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    out.print(table, soft_wrap=False)


def write_sections(title: str, sections: Sequence[tuple[str, str]]) -> None:
    """Answer with headed texts: panels on a terminal, plain paragraphs into a pipe."""
    if not out.is_terminal:
        write("\n\n".join([title, *(f"{heading}\n{body}" for heading, body in sections)]))
        return
    out.print(Text(printable(title), style="bold"))
    for heading, body in sections:
        out.print(
            Panel(Text(printable(body)), title=heading, title_align="left", border_style="dim"),
            soft_wrap=False,
        )


def note(text: str) -> None:
    """Say something about the answer, dimmed."""
    err.print(Text(printable(text), style="dim"))


def fail(*sentences: str) -> None:
    """Say in one line what went wrong, and what to do about it."""
    line = " ".join(_sentence(printable(" ".join(sentence.split()))) for sentence in sentences)
    err.print(Text.assemble(("Error: ", "bold red"), line))


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."


def exit_on_error(command: Callable[P, R]) -> Callable[P, R]:
    """Let a `TransomError` end the command with one line and an honest status."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except TransomError as error:
            fail(*filter(None, (error.message, *getattr(error, "__notes__", ()), remedy(error))))
            raise typer.Exit(exit_code(error)) from error

    return run


def exit_code(error: TransomError) -> ExitCode:
    """The status that an error ends a command with."""
    match error:
        case ServerUnreachable() | UnexpectedReply():
            return ExitCode.UNREACHABLE
        case AccessDenied():
            return ExitCode.DENIED
        case InvalidRequest() | PayloadTooLarge():
            return ExitCode.USAGE
        case _:
            return ExitCode.NO


_REMEDIES = {
    "invalid_session": "Run transom login EMAIL.",
    "recent_sign_in_needed": "Run transom login EMAIL.",
    "invalid_link": "",
    "asked_elsewhere": "",
    "cross_site_request": "",
}
"""By code, where a session was refused and no key is wanted."""


def remedy(error: TransomError) -> str:
    """What to do about it, where the message itself does not say."""
    if isinstance(error, AccessDenied) and error.reason in _REMEDIES:
        return _REMEDIES[error.reason]
    match error:
        case Unauthenticated():
            return "Set TRANSOM_API_KEY, or pass --api-key."
        case Forbidden():
            return "Use a key that allows it; the operator of the server hands them out."
        case EngineBusy():
            return ""
        case EngineUnavailable() | RateLimited():
            return f"Try again in {error.retry_after} s."
        case _:
            return ""
