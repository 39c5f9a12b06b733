"""Asks an OpenAI-compatible API short questions, in the form that it takes, at the pace that it allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import httpx2

from transom.client.failures import RateLimited, ServerUnreachable, reaching
from transom.client.watching.baseline import Form, Method
from transom.client.watching.replies import ModelList, Reply, read, refusal
from transom.client.watching.shifts import Logprobs
from transom.errors import (
    EngineUnavailable,
    InvalidRequest,
    NotFound,
    RequestError,
    TransomError,
    Unauthenticated,
)

T = TypeVar("T")

LOGPROB_FORMS = (
    Form(endpoint="chat", top=20),
    Form(endpoint="chat", top=5),
    Form(endpoint="completions", top=20),
    Form(endpoint="completions", top=5),
)
"""Tried in this order: more logprobs say more, and a chat sees the chat template too."""

TEXT_FORMS = (
    Form(endpoint="chat", seeded=True),
    Form(endpoint="chat"),
    Form(endpoint="completions", seeded=True),
    Form(endpoint="completions"),
)

TRIES = 5
"""How often one request is sent, at most."""

LONGEST_WAIT = 120
"""Seconds that a server may ask to wait before we give up."""

_PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


class Asker:
    """Asks one model, and keeps count.

    Args:
        http: a client of the server's address, with the key.
        model: the model's name there.
        concurrency: requests of a round that are in flight at once.
        sleep: waits so many seconds.
        say: told what is waited for.
    """

    def __init__(
        self,
        http: httpx2.Client,
        model: str,
        *,
        concurrency: int = 1,
        sleep: Callable[[float], None] = time.sleep,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.url = str(http.base_url).rstrip("/")
        self.model = model
        self.requests = 0
        """Requests sent, refused ones included."""
        self.tokens = 0
        """Tokens that the server counted, of prompts and answers."""
        self.fingerprints: set[str] = set()
        """What the server says of what answers: its `system_fingerprint`, and the model that it names."""
        self._http = http
        self._concurrency = concurrency
        self._sleep = sleep
        self._say = say

    def find_form(self, method: Method | None) -> tuple[Form, str | None]:
        """The form of requests that the server takes, and why it is not one with logprobs.

        Args:
            method: the only one to try; None for logprobs where there are any, else texts.

        Raises:
            InvalidRequest: the server does not do what was asked for.
            NotFound: it has no such model.
        """
        refused: RequestError | None = None
        for form in (*LOGPROB_FORMS, *TEXT_FORMS):
            if method is not None and method != form.method:
                continue
            try:
                found = self._accepted(form)
            except (Unauthenticated, RateLimited):
                raise
            except RequestError as error:
                self._check_model(error)
                refused = refused or error
                continue
            if refused is None or method is not None or form.top:
                return found, None
            return found, refused.message
        said = "" if refused is None else refused.message
        if method == "logprobs":
            raise InvalidRequest(
                f"{self.url} gives no logprobs: {said} Leave --method out to test texts instead.",
                param="method",
            )
        raise InvalidRequest(f"{self.url} takes none of our requests: {said}", param="model")

    def ask_rounds(
        self, count: int, prompts: Sequence[str], ask: Callable[[int, str], T], spread: float = 0.0
    ) -> list[list[T]]:
        """Rounds of answers to all prompts.

        Args:
            count: how many rounds.
            prompts: what to ask in each.
            ask: `logprobs` or `text`, of the number of a prompt and the prompt.
            spread: seconds from the start of the first round to the start of the last.
        """
        rounds = []
        began = time.monotonic()
        with ThreadPoolExecutor(self._concurrency) as pool:
            for number in range(count):
                due = began + spread * number / max(1, count - 1)
                if (wait := due - time.monotonic()) > 0:
                    self._sleep(wait)
                rounds.append(list(pool.map(ask, range(len(prompts)), prompts)))
        return rounds

    def logprobs(self, form: Form, prompt: str) -> Logprobs:
        """The likeliest first tokens of the answer.

        Raises:
            InvalidRequest: the answer has none.
        """
        reply = self._send(form, prompt, {form.limit: 1, "temperature": 0})
        logprobs = reply.choices[0].logprobs
        found = [] if logprobs is None else sorted(logprobs.first(), key=lambda each: -each[1])
        if not found:
            raise InvalidRequest(f"The answer to {prompt!r} came without logprobs.", param="logprobs")
        # A server may add the token that it drew; of two with the same text, the likelier one stays.
        return dict(reversed(found[: form.top]))

    def text(self, form: Form, prompt: str, max_tokens: int, seed: int, *, temperature: float = 1.0) -> str:
        """An answer, drawn at random."""
        options = {form.limit: max_tokens, "temperature": temperature}
        options |= {"seed": seed} if form.seeded else {}
        return self._send(form, prompt, options).choices[0].said

    def _accepted(self, form: Form) -> Form:
        """The form as the server takes it.

        Raises:
            RequestError: it does not.
        """
        try:
            self._try(form)
        except InvalidRequest as error:
            if "max_completion_tokens" not in error.message:
                raise
            form = replace(form, limit="max_completion_tokens")
            self._try(form)
        return form

    def _try(self, form: Form) -> None:
        if form.top:
            self.logprobs(form, "x")
        else:
            self.text(form, "x", max_tokens=1, seed=0)

    def _send(self, form: Form, prompt: str, options: Mapping[str, float]) -> Reply:
        body: dict[str, object] = {"model": self.model, **options}
        if form.endpoint == "chat":
            body["messages"] = [{"role": "user", "content": prompt}]
            body |= {"logprobs": True, "top_logprobs": form.top} if form.top else {}
        else:
            body["prompt"] = prompt
            body |= {"logprobs": form.top} if form.top else {}
        reply = read(Reply, self._post(_PATHS[form.endpoint], body))
        self._note(reply)
        return reply

    def _post(self, path: str, body: dict[str, object]) -> httpx2.Response:
        waits = self._waits()
        while True:
            try:
                return self._post_once(path, body)
            except (RateLimited, EngineUnavailable, ServerUnreachable) as error:
                pause = _pause(error, next(waits, None))
                if pause is None:
                    raise
                self._say(f"{error.message} Trying again in {pause:g} s.")
                self._sleep(pause)

    def _post_once(self, path: str, body: dict[str, object]) -> httpx2.Response:
        self.requests += 1
        with reaching(self.url):
            response = self._http.post(path, json=body)
        if not response.is_success:
            raise refusal(response)
        return response

    @staticmethod
    def _waits() -> Iterator[float]:
        """Seconds to wait after each failed try where the server does not say; the last is not waited for."""
        return (2.0**number for number in range(TRIES - 1))

    def _note(self, reply: Reply) -> None:
        self.tokens += 0 if reply.usage is None else reply.usage.total_tokens
        for name, said in (("model", reply.model), ("system_fingerprint", reply.system_fingerprint)):
            if said is not None:
                self.fingerprints.add(f"{name} {said}")

    def _check_model(self, error: RequestError) -> None:
        """Tell a model that is not there from a form that is not taken.

        Raises:
            NotFound: the model is not there.
        """
        if not isinstance(error, NotFound):
            return
        with reaching(self.url):
            response = self._http.get("/v1/models")
        names = [each.id for each in read(ModelList, response).data] if response.is_success else []
        if error.reason == "model_not_found" or (names and self.model not in names):
            known = f"; it lists {', '.join(names)}" if names else ""
            raise NotFound(f"{self.url} has no model {self.model!r}{known}.", param="model") from error


def _pause(error: TransomError, usual: float | None) -> float | None:
    """Seconds to wait; None where waiting does not help, or was done often enough."""
    if usual is None or getattr(error, "reason", None) == "insufficient_quota":
        return None
    asked: int | None = getattr(error, "retry_after", None)
    if asked is None:
        return usual
    return float(asked) if asked <= LONGEST_WAIT else None
