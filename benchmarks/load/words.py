"""How scenarios, settings and figures are called where people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHOWN: dict[str, tuple[str, ...]] = {
    "decode": (
        "output_tokens_per_s", "ttft_p50_ms", "ttft_p95_ms", "ttft_p99_ms",
        "itl_p50_ms", "itl_p95_ms", "itl_p99_ms",
    ),
    "prefill": ("prompt_tokens_per_s", "latency_p50_ms", "latency_p95_ms"),
    "scoring": ("scored_tokens_per_s", "latency_p50_ms", "latency_p95_ms"),
    "choice": ("scored_tokens_per_s", "latency_p50_ms", "latency_p95_ms"),
    "determinism": ("same_tokens", "same_logprobs", "largest_difference"),
    "resources": ("peak_rss_mib", "start_s", "idle_cpu_percent"),
    "fairness": (
        "slowdown_p95", "slowdown_p50",
        "idle_p50_ms", "idle_p95_ms", "flood_p50_ms", "flood_p95_ms",
    ),
    "gateway": ("requests_per_s", "cpu_us_per_request", "latency_p50_ms", "latency_p99_ms"),
    "gateway_latency": ("added_p50_ms", "latency_p50_ms", "latency_p99_ms"),
    "gateway_stream": ("cpu_us_per_chunk", "chunks_per_s"),
    "inside": ("done_per_s",),
    "storm": (
        "slowdown_p95", "slowdown_p50", "calm_p50_ms", "calm_p95_ms", "storm_p50_ms", "storm_p95_ms",
        "same_answers", "plans",
    ),
    "log": (
        "append_entries_per_s", "growth_p50_ms", "growth_p99_ms",
        "inclusion_proof_p50_us", "inclusion_proof_p99_us",
        "inclusion_verification_p50_us", "inclusion_verification_p99_us", "inclusion_hashes",
        "consistency_proof_p50_us", "consistency_proof_p99_us",
        "consistency_verification_p50_us", "consistency_verification_p99_us", "consistency_hashes",
        "check_s", "bytes_per_entry", "disk_mib", "peak_rss_mib",
    ),
    "log_tampering": ("changed", "unnoticed"),
    "replay": (
        "faster_than_one_by_one", "faster_than_at_once",
        "replayed_tokens_per_s", "at_once_tokens_per_s", "one_by_one_tokens_per_s", "exact",
    ),
}  # fmt: skip
"""Figures of each scenario that are shown, the one that counts first."""

WITHOUT_RATIO = {"determinism", "fairness", "storm", "replay", "idle_cpu_percent", "chunks_per_s"}
"""Scenarios and figures whose ratio would say nothing."""

NAMES = {
    "output_tokens_per_s": "output tokens/s",
    "prompt_tokens_per_s": "prompt tokens/s",
    "scored_tokens_per_s": "scored tokens/s",
    "same_tokens": "same tokens",
    "same_logprobs": "same tokens, logprobs equal to the bit",
    "largest_difference": "largest difference of a logprob",
    "peak_rss_mib": "peak memory, MiB",
    "start_s": "start, s",
    "idle_cpu_percent": "CPU while idle, % of a core",
    "slowdown_p50": "p50, disturbed over undisturbed",
    "slowdown_p95": "p95, disturbed over undisturbed",
    "same_answers": "answers equal to the bit",
    "plans": "plans answered meanwhile",
    "requests_per_s": "requests/s",
    "cpu_us_per_request": "processor time of a request, µs",
    "added_p50_ms": "added to the upstream's latency p50, ms",
    "cpu_us_per_chunk": "processor time of a chunk, µs",
    "chunks_per_s": "chunks/s, as offered",
    "append_entries_per_s": "entries/s, synced",
    "growth_p50_ms": "one checkpoint p50, ms",
    "growth_p99_ms": "one checkpoint p99, ms",
    "inclusion_proof_p50_us": "proof of an entry p50, µs",
    "inclusion_proof_p99_us": "proof of an entry p99, µs",
    "inclusion_verification_p50_us": "its verification p50, µs",
    "inclusion_verification_p99_us": "its verification p99, µs",
    "inclusion_hashes": "hashes of the longest",
    "consistency_proof_p50_us": "proof of consistency p50, µs",
    "consistency_proof_p99_us": "proof of consistency p99, µs",
    "consistency_verification_p50_us": "its verification p50, µs",
    "consistency_verification_p99_us": "its verification p99, µs",
    "consistency_hashes": "hashes of the longest",
    "check_s": "check of all files, s",
    "bytes_per_entry": "bytes of an entry, tiles included",
    "disk_mib": "on disk, MiB",
    "changed": "bytes changed, one at a time",
    "unnoticed": "changes that were not noticed",
    "faster_than_one_by_one": "replaying, times faster than generating one by one",
    "faster_than_at_once": "replaying, times faster than generating all at once",
    "replayed_tokens_per_s": "replayed tokens/s",
    "at_once_tokens_per_s": "generated tokens/s, all at once",
    "one_by_one_tokens_per_s": "generated tokens/s, one by one",
    "exact": "EXACT, of each part",
    "done_per_s": "prompts, cells, tokens or plans a second",
}
"""Names of figures; others are made from their parts."""

_SETTINGS = {
    "decode": "decode {prompt_tokens} + {max_tokens}, {at_once}, {how}",
    "prefill": "prefill of {prompt_tokens} tokens, {at_once}",
    "scoring": "scoring of {prompt_tokens} tokens, {at_once}",
    "choice": "{choices} choices of {context_tokens} + {ending_tokens} tokens, {at_once}",
    "determinism": "{requests} seeded requests alone, and beside {beside} others",
    "fairness": "one short request a second beside {flood} long ones of another project",
    "resources": "memory and start",
    "gateway": "gateway, tiny answers, {at_once}",
    "gateway_latency": "gateway, tiny answers, {at_once}",
    "gateway_stream": "gateway, streams of 128 chunks, {at_once}",
    "inside": "inside: {task}",
    "log": "log of {entries:,} entries, about {growth:,} a checkpoint",
    "log_tampering": "tiles, entries, checkpoint, record and receipt of a log of {entries:,} entries",
    "replay": "replaying {count} completions of {tokens} tokens, in parts of {at_once}",
    "storm": "{streams} streams beside {plans} plans of another project",
}

_PARTS = {
    "ttft": "first token",
    "itl": "between tokens",
    "latency": "latency",
    "idle": "idle",
    "flood": "flood",
    "calm": "between tokens, undisturbed",
    "storm": "between tokens, disturbed",
}


def name_figure(figure: str) -> str:
    """A figure's name for people."""
    if figure in NAMES:
        return NAMES[figure]
    what, _, rest = figure.partition("_")
    if what in _PARTS and rest.endswith("_ms"):
        return f"{_PARTS[what]} {rest.removesuffix('_ms')}, ms"
    return figure.replace("_", " ")


def name_setting(scenario: str, settings: Mapping[str, Any]) -> str:
    """What was done, in a few words."""
    words = dict(settings)
    words["at_once"] = f"{words.get('concurrency', words.get('at_once', 1))} at once"
    words["how"] = "seeded" if words.get("temperature") else "greedy"
    return _SETTINGS.get(scenario, scenario).format(**words)


def show(figure: str, value: float | None, requests: float | None = None) -> str:
    """A figure with as many digits as it deserves.

    Args:
        figure: its name.
        value: None where it was not measured.
        requests: of how many, where the figure is a count of requests.
    """
    if value is None:
        return "-"
    if figure.startswith("same_"):
        return f"{value:.0f}" + (f" of {requests:.0f}" if requests else "")
    if figure == "largest_difference":
        return f"{value:.2g}"
    if figure == "errors":
        return f"{value:.0f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
