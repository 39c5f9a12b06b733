"""`transom top`: what it shows of the numbers, and what it says where there are none."""

from __future__ import annotations

import math
from functools import partial

import httpx2
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from transom.api.metrics import Metrics
from transom.backends.activity import Activity, Latencies
from transom.cli import output, top
from transom.cli.readings import Reading, Span
from transom.client import UnexpectedReply
from transom.errors import TransomError

FORBIDDEN = {
    "error": {
        "message": "Metrics are for this machine alone; set TRANSOM_METRICS_PUBLIC=true.",
        "type": "permission_error",
        "param": None,
        "code": "permission_denied",
        "layer": "access",
    }
}


class Backend:
    """All that metrics ask of a backend."""

    def __init__(self, **numbers):
        self.ready = True
        self.numbers = numbers
        self.latencies = Latencies()

    @property
    def activity(self):
        return Activity(**self.numbers, latencies=self.latencies)


class Server:
    """Answers with the metrics that the real code makes of a made-up backend, and moves on each time."""

    def __init__(self):
        self.backend = Backend()
        self.metrics = Metrics({"smol": self.backend}, public=False)
        self.looks = 0
        self.then = lambda looks: None
        self.reply = None

    def __call__(self, request):
        assert request.url.path == "/metrics"
        assert "authorization" not in request.headers
        self.looks += 1
        self.then(self.looks)
        if self.reply is not None:
            if isinstance(self.reply, Exception):
                raise self.reply
            return self.reply
        return httpx2.Response(200, content=text_of(self.metrics))


def text_of(metrics):
    from prometheus_client import generate_latest

    return generate_latest(metrics.registry)


@pytest.fixture
def server(monkeypatch):
    made = Server()
    transport = httpx2.MockTransport(made)
    monkeypatch.setattr(top, "_http", lambda connection: httpx2.Client(
        transport=transport, **connection.options(5.0)
    ))  # fmt: skip
    for name in ("TRANSOM_BASE_URL", "TRANSOM_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time passes by sleeping, and sleeping takes none."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

        def sleep(self, seconds):
            self.now += seconds

    made = Clock()
    monkeypatch.setattr(top, "time", made)
    return made


def attach(monkeypatch, **options):
    made = partial(Console, highlight=False, markup=False, emoji=False, soft_wrap=True, **options)
    monkeypatch.setattr(output, "out", made())
    monkeypatch.setattr(output, "err", made(stderr=True))


@pytest.fixture(autouse=True)
def _pipe(monkeypatch):
    attach(monkeypatch, force_terminal=False)


def transom(*arguments):
    app = typer.Typer()
    top.register(app)
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def rows(result):
    return {tuple(line.split("\t")[:2]): line.split("\t")[2] for line in result.stdout.splitlines()}


def test_one_frame_has_what_happened_between_two_looks(server):
    backend = server.backend

    def then(look):
        backend.numbers = {
            "running": 3, "waiting": 12, "pages": 200, "pages_used": 50, "pages_cached": 20,
            "steps": 1000 + 40 * look, "batch_sequences": 9000 + 120 * look, "batch_tokens": 200 * look,
            "prompt_tokens": 500 * look, "generated_tokens": 60 * look, "scored_tokens": 0,
            "prefix_queries": 1000 * look, "prefix_hits": 250 * look, "preemptions": 2, "restarts": 1,
            "refusals": {"queue": 3, "project": 4},
        }  # fmt: skip
        if look == 1:
            backend.latencies.first_token.observe(100.0, 500)
        for _ in range(10):
            backend.latencies.between_tokens.observe(0.03)

    server.then = then
    result = transom("--once", "--interval", "2")
    assert result.exit_code == 0
    assert server.looks == 2
    assert rows(result) == {
        ("smol", "sequences"): "3 running · 12 waiting",
        ("smol", "batch"): "3.0 sequences · 5.0 tokens a step · 20.0 steps/s",
        ("smol", "tokens/s"): "250.0 prompt · 30.0 generated · 0.0 scored",
        ("smol", "first token"): "none",
        ("smol", "between tokens"): "p50 38 ms · p95 49 ms",
        ("smol", "cache"): "25% of 200 pages held · 10% kept for later · 25% of prompt tokens found",
        ("smol", "so far"): "2 preemptions · 1 restarts · 7 refused",
    }


def test_an_idle_server_has_nothing_to_show_and_says_so(server):
    shown = rows(transom("--once"))
    assert shown["smol", "batch"] == "no steps"
    assert shown["smol", "cache"] == "no prompts"
    assert shown["smol", "between tokens"] == "none"


def test_a_server_that_was_started_again_in_between_counts_from_zero(server):
    def then(look):
        server.backend.numbers = {"generated_tokens": 5000 if look == 1 else 10, "steps": 90 // look}

    server.then = then
    assert rows(transom("--once"))["smol", "tokens/s"] == "0.0 prompt · 10.0 generated · 0.0 scored"


def test_the_address_may_be_given_or_come_from_the_environment(server, monkeypatch):
    asked = []
    server.then = lambda _: None
    original = Server.__call__
    monkeypatch.setattr(Server, "__call__", lambda self, r: (asked.append(str(r.url)), original(self, r))[1])
    transom("http://a.test/v1", "--once")
    monkeypatch.setenv("TRANSOM_BASE_URL", "http://b.test:9")
    transom("--once")
    assert set(asked) == {"http://a.test/metrics", "http://b.test:9/metrics"}


@pytest.mark.parametrize(
    ("reply", "status", "said"),
    [
        (httpx2.ConnectError("refused"), 3, "Nothing answers at http://127.0.0.1:8600"),
        (httpx2.ReadTimeout("slow"), 3, "took longer than this client waits"),
        (httpx2.Response(403, json=FORBIDDEN), 4, "TRANSOM_METRICS_PUBLIC=true"),
        (httpx2.Response(404, content=b"Not found"), 3, "Check the address"),
        (httpx2.Response(200, content=b"<html>hello</html>"), 3, "no metrics"),
        (httpx2.Response(200, content=b"go_threads 7\n"), 3, "not those of a Transom server"),
    ],
)
def test_what_cannot_be_watched_is_one_clear_line(server, reply, status, said):
    if isinstance(reply, httpx2.Response):
        reply.request = httpx2.Request("GET", "http://127.0.0.1:8600/metrics")
    server.reply = reply
    result = transom("--once")
    assert (result.exit_code, result.stdout) == (status, "")
    assert said in result.stderr.replace("\n", " ")
    assert "--api-key" not in result.stderr
    assert "Use a key" not in result.stderr


def test_a_wrong_address_is_named(server):
    result = transom("nonsense", "--once")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "'nonsense' is no address" in result.stderr


class TestLive:
    """On a terminal: one frame in the place of the other, until Ctrl-C."""

    @pytest.fixture(autouse=True)
    def _terminal(self, monkeypatch):
        attach(monkeypatch, force_terminal=True, color_system=None, width=100)

    def test_it_looks_each_second_until_interrupted(self, server, clock):
        def then(look):
            server.backend.numbers = {"generated_tokens": 40 * look}
            if look == 30:
                raise KeyboardInterrupt

        server.then = then
        result = transom()
        assert result.exit_code == 0
        assert clock.now == 129.0
        assert "40.0 generated" in result.stdout
        assert "smol" in result.stdout

    def test_a_server_that_goes_away_is_waited_for(self, server):
        def then(look):
            server.reply = httpx2.ConnectError("gone") if 3 <= look < 6 else None
            if look == 9:
                raise KeyboardInterrupt

        server.then = then
        result = transom()
        assert result.exit_code == 0
        assert "Nothing answers at http://127.0.0.1:8600" in result.stdout

    def test_a_model_that_is_not_ready_is_shown_as_that(self, server):
        server.backend.ready = False
        server.then = interrupt_at(3)
        assert "not ready" in transom().stdout

    def test_a_name_does_not_command_the_terminal(self, server):
        server.metrics = Metrics({"evil\x1b]0;title\x07": server.backend}, public=False)
        server.then = interrupt_at(3)
        assert "\x1b]0;" not in transom().stdout


def interrupt_at(last):
    def then(look):
        if look == last:
            raise KeyboardInterrupt

    return then


class TestReadings:
    NAME = "transom_time_to_first_token_seconds"

    def span(self, *observed, before=()):
        readings = []
        backend = Backend()
        metrics = Metrics({"m": backend}, public=False)
        for durations in (before, observed):
            for seconds in durations:
                backend.latencies.first_token.observe(seconds)
            readings.append(Reading.parse(text_of(metrics).decode(), len(readings)))
        return Span(*readings, "m")

    def test_a_quantile_lies_in_the_bucket_of_the_true_one(self):
        durations = [0.003] * 10 + [0.03] * 60 + [0.2] * 25 + [2.0] * 5
        span = self.span(*durations, before=[50.0] * 1000)
        assert 0.025 < span.quantile(self.NAME, 0.5) <= 0.05
        assert 0.1 < span.quantile(self.NAME, 0.95) <= 0.25
        assert 1.0 < span.quantile(self.NAME, 0.99) <= 2.5

    def test_quantiles_rise_with_their_share(self):
        span = self.span(*(0.001 * 1.3**power for power in range(40)))
        found = [span.quantile(self.NAME, share / 100) for share in range(1, 100)]
        assert found == sorted(found)

    def test_no_duration_has_no_quantile(self):
        assert self.span(before=[1.0]).quantile(self.NAME, 0.5) is None

    def test_beyond_the_last_bound_is_infinite(self):
        assert math.isinf(self.span(1e6).quantile(self.NAME, 0.5))

    @pytest.mark.parametrize("text", ["{", "x{", 'a{b="c} 1', "name 1 2 3 4"])
    def test_what_is_no_metrics_is_refused(self, text):
        with pytest.raises(UnexpectedReply):
            Reading.parse(text, 0.0)

    def test_only_our_own_errors_come_out(self):
        with pytest.raises(TransomError):
            Reading.parse("", 0.0)
