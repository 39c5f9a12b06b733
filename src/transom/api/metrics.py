"""`GET /metrics`: what the server and its engines do, in the words of Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv6Address, ip_address

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from transom.backends.activity import Activity, Histogram
from transom.backends.base import Backend
from transom.errors import Forbidden
from transom.tlog.publishing import Progress

_GAUGES = (
    ("transom_sequences_running", "Sequences in the engine's batch", "running"),
    ("transom_sequences_waiting", "Sequences that were taken and do not run yet", "waiting"),
    ("transom_cache_pages", "Pages of the cache for keys and values", "pages"),
    ("transom_cache_used_pages", "Pages that a sequence holds", "pages_used"),
    ("transom_cache_cached_pages", "Pages that no sequence holds and that may be used again", "pages_cached"),
)
"""(name, help, attribute of `Activity`)."""

_COUNTERS = (
    ("transom_steps", "Steps of the engine", "steps"),
    ("transom_step_seconds", "Time spent in steps", "step_seconds"),
    ("transom_batch_sequences", "Sum over steps of the sequences in the batch", "batch_sequences"),
    ("transom_batch_tokens", "Sum over steps of the rows in the batch", "batch_tokens"),
    ("transom_layer_rows", "Sum over steps of the layers that each row went through", "layer_rows"),
    ("transom_prefix_cache_queried_tokens", "Prompt tokens looked up in the prefix cache", "prefix_queries"),
    ("transom_prefix_cache_hit_tokens", "Prompt tokens found in the prefix cache", "prefix_hits"),
    ("transom_preemptions", "Sequences that gave their pages back and started over", "preemptions"),
    ("transom_engine_restarts", "Times that the engine died or hung and was started again", "restarts"),
)
"""The same; `_total` is added to each name."""

_TOKENS = {"prompt": "prompt_tokens", "generated": "generated_tokens", "scored": "scored_tokens"}

_HISTOGRAMS = (
    ("transom_time_to_first_token_seconds", "From taking a sequence to its first token", "first_token"),
    ("transom_inter_token_latency_seconds", "From one token of a sequence to the next", "between_tokens"),
    ("transom_e2e_latency_seconds", "From taking a sequence to its end", "whole"),
)
"""(name, help, attribute of `Latencies`)."""

router = APIRouter(tags=["Service"])


class Metrics(Collector):
    """What can be scraped; read from the backends when it is.

    Args:
        backends: by name of the model.
        public: whether other machines may read it.
    """

    def __init__(self, backends: Mapping[str, Backend], *, public: bool) -> None:
        self.public = public
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._backends = backends
        self._answered: Counter[tuple[str, str]] = Counter()
        self._log: Callable[[], Progress] | None = None

    def watch_log(self, progress: Callable[[], Progress]) -> None:
        """Show how far the public log is, too."""
        self._log = progress

    def answered(self, endpoint: str, status: int) -> None:
        """Count one request."""
        self._answered[endpoint, str(status)] += 1

    def collect(self) -> Iterable[Metric]:
        """The metrics of this moment."""
        read = {name: backend.activity for name, backend in self._backends.items()}
        yield from _gauges(read)
        yield self._ready()
        yield from _counters(read)
        yield from _histograms(read)
        requests = CounterMetricFamily(
            "transom_requests",
            "Requests that were answered, or given up (499)",
            labels=["endpoint", "status"],
        )
        for labels, count in sorted(self._answered.items()):
            requests.add_metric(labels, count)
        yield requests
        if self._log is not None:
            yield from _published(self._log())

    def _ready(self) -> Metric:
        ready = GaugeMetricFamily("transom_model_ready", "1 while the engine is up", labels=["model"])
        for name, backend in self._backends.items():
            ready.add_metric([name], backend.ready)
        return ready


def _published(progress: Progress) -> Iterator[Metric]:
    entries = GaugeMetricFamily(
        "transom_log_entries", "Entries of the public log: kept in the database, published", labels=["state"]
    )
    entries.add_metric(["kept"], progress.kept)
    entries.add_metric(["published"], progress.published)
    yield entries
    yield GaugeMetricFamily(
        "transom_log_stands", "1 while the log cannot be published", value=progress.stands is not None
    )


def _gauges(read: Mapping[str, Activity]) -> Iterator[Metric]:
    for name, about, attribute in _GAUGES:
        gauge = GaugeMetricFamily(name, about, labels=["model"])
        for model, activity in read.items():
            gauge.add_metric([model], getattr(activity, attribute))
        yield gauge


def _counters(read: Mapping[str, Activity]) -> Iterator[Metric]:
    for name, about, attribute in _COUNTERS:
        counter = CounterMetricFamily(name, about, labels=["model"])
        for model, activity in read.items():
            counter.add_metric([model], getattr(activity, attribute))
        yield counter
    tokens = CounterMetricFamily(
        "transom_tokens", "Tokens: computed of prompts, generated, or scored", labels=["model", "kind"]
    )
    refusals = CounterMetricFamily(
        "transom_overload_refusals",
        "Requests refused because too many sequences wait: in all, or of one project",
        labels=["model", "limit"],
    )
    for model, activity in read.items():
        for kind, attribute in _TOKENS.items():
            tokens.add_metric([model, kind], getattr(activity, attribute))
        for limit, count in activity.refusals.items():
            refusals.add_metric([model, limit], count)
    yield tokens
    yield refusals


def _histograms(read: Mapping[str, Activity]) -> Iterator[Metric]:
    for name, about, attribute in _HISTOGRAMS:
        family = HistogramMetricFamily(name, about, labels=["model"])
        for model, activity in read.items():
            histogram: Histogram = getattr(activity.latencies, attribute)
            bounds = [*map(str, histogram.bounds), "+Inf"]
            buckets = list(zip(bounds, histogram.cumulative, strict=True))
            family.add_metric([model], buckets, histogram.total)
        yield family


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """What the server does, for Prometheus; for this machine alone, unless the operator opens it."""
    shown: Metrics = request.app.state.metrics
    if not (shown.public or _is_local(request)):
        raise Forbidden(
            "Metrics are for this machine alone; the operator can open them with TRANSOM_METRICS_PUBLIC=true."
        )
    encode, kind = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(shown.registry), headers={"content-type": kind})


def _is_local(request: Request) -> bool:
    """Whether the client is on this machine, as far as the server can see."""
    try:
        address = ip_address(request.client.host) if request.client else None
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    return address is not None and address.is_loopback
