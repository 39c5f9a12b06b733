"""What a server shows once it is up: one question answered, its record replayed, and how to ask more."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rich.panel import Panel
from rich.text import Text

from transom.app import key_store, open_database
from transom.cli.output import err, note, out
from transom.client import Client, ServerUnreachable
from transom.config import Settings
from transom.errors import GenerationFailed, OperatorError, TransomError, Unauthenticated

QUESTION = "What is gravity, in one sentence?"
_PAUSE = 0.3
"""Seconds between two looks at a server that is starting."""

_KEY_NAME = "made by transom serve --welcome"


class Welcome:
    """Waits for the server beside it, in a thread, and tries it as a researcher would.

    Args:
        settings: the server's.
        env_file: also gets `OPENAI_BASE_URL` and `OPENAI_API_KEY`, for scripts, once all is well.
        on_failure: told what went wrong; the server should not pretend to be up then.
    """

    def __init__(
        self, settings: Settings, env_file: Path | None, on_failure: Callable[[TransomError], None]
    ) -> None:
        self._settings = settings
        self._env_file = env_file
        self._on_failure = on_failure
        self._thread = threading.Thread(target=self._run, name="welcome", daemon=True)

    def start(self) -> None:
        """Begin to wait for the server."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self._greet()
        except TransomError as error:
            self._on_failure(error)
        except Exception as error:  # noqa: BLE001  # a thread that dies in silence would leave a script waiting
            self._on_failure(OperatorError(f"The welcome failed: {type(error).__name__}: {error}"))

    def _greet(self) -> None:
        url = f"http://{self._settings.host}:{self._settings.port}"
        with Client(url, api_key="") as client:
            _wait_until_up(client)
        key = self._ready_key(url)
        with Client(url, api_key=key) as client:
            model = _first_model(client)
            _demonstrate(client, model)
        _print_lines(url, key, model)
        if self._env_file is not None:
            _write_private(self._env_file, f"OPENAI_BASE_URL={url}/v1\nOPENAI_API_KEY={key}\n")

    def _ready_key(self, url: str) -> str:
        """The key of an earlier welcome while it is good, else a new one."""
        file = self._settings.home / "welcome.key"
        if file.exists() and _is_good(url, kept := file.read_text().strip()):
            return kept
        database = open_database(self._settings)
        try:
            key = asyncio.run(key_store(self._settings, database).create(name=_KEY_NAME)).text
        finally:
            database.close()
        _write_private(file, key + "\n")
        return key


def _wait_until_up(client: Client) -> None:
    """Return once anything answers, if only that a key is wanted."""
    while True:
        try:
            client.models()
        except ServerUnreachable:
            time.sleep(_PAUSE)
        except TransomError:
            return
        else:
            return


def _first_model(client: Client) -> str:
    """The first model that is up."""
    while not (models := client.models()):
        time.sleep(_PAUSE)
    return models[0].id


def _is_good(url: str, key: str) -> bool:
    with Client(url, api_key=key) as client:
        try:
            client.models()
        except Unauthenticated:
            return False
        return True


def _demonstrate(client: Client, model: str) -> None:
    answer = client.chat(QUESTION, model=model, max_tokens=48, temperature=0.0)
    report = client.replay(answer.record)
    out.print(
        Panel(Text(answer.text), title=QUESTION, title_align="left", border_style="dim"), soft_wrap=False
    )
    note(f"record {answer.record} by deployment {answer.deployment}")
    out.print(
        Text.assemble("replayed: ", (report.level, "bold green" if report.level == "EXACT" else "bold red"))
    )
    if report.level != "EXACT":
        raise GenerationFailed(f"The first answer does not replay: {report.reason}.")


def _print_lines(url: str, key: str, model: str) -> None:
    out.print(
        "\nPaste this into Python, with the openai package installed:\n\n"
        f'    from openai import OpenAI\n    client = OpenAI(base_url="{url}/v1", api_key="{key}")\n'
        f'    question = [{{"role": "user", "content": "Why is the sky blue?"}}]\n'
        f'    answer = client.chat.completions.create(model="{model}", messages=question)\n'
        "    print(answer.choices[0].message.content, answer.transom)\n"
    )
    err.print(f"Serving on {url}; Ctrl-C ends it.", style="dim")


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, all of it or nothing."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    staged.replace(path)
