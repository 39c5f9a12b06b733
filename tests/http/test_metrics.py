"""`/metrics`: what is shown, to whom, and that nobody's typing becomes a label."""

from __future__ import annotations

import re

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.documents import ROOT
from tests.http.door import MODEL, open_door, settings
from tests.http.live import Live
from transom.app import create_app
from transom.backends.activity import Activity, Latencies
from transom.backends.admission import WaitingRoom

pytestmark = pytest.mark.anyio

REMOTE = ("203.0.113.5", 4711)


def client_from(door, address, **options):
    transport = httpx2.ASGITransport(app=door.app, client=address)
    return httpx2.AsyncClient(transport=transport, base_url="http://door", **options)


async def scrape(door) -> dict[tuple[str, ...], float]:
    """The value of each sample, by its name and the values of its labels in the order of their names."""
    reply = await door.client.get("/metrics")
    assert reply.status_code == 200, reply.text
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"])
async def test_this_machine_reads_them_without_a_key(door, address):
    async with client_from(door, (address, 4711)) as client:
        reply = await client.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain; version=")
    assert "# TYPE transom_sequences_running gauge" in reply.text


@pytest.mark.parametrize(
    "address", [REMOTE, ("::ffff:203.0.113.5", 1), ("2001:db8::7", 1), ("a name", 1), None]
)
async def test_others_are_told_who_can_open_them(door, address):
    async with client_from(door, address, headers={"authorization": f"Bearer {door.key}"}) as client:
        reply = await client.get("/metrics")
    assert reply.status_code == 403
    error = reply.json()["error"]
    assert (error["code"], error["type"]) == ("permission_denied", "permission_error")
    assert "TRANSOM_METRICS_PUBLIC=true" in error["message"]


async def test_everybody_reads_them_where_the_operator_opened_them(tokenizer, tmp_path):
    async with (
        open_door(tmp_path, tokenizer, metrics_public=True) as door,
        client_from(door, REMOTE) as client,
    ):
        assert (await client.get("/metrics")).status_code == 200


async def test_they_are_no_endpoint_of_the_api(door):
    assert "/metrics" not in (await door.client.get("/openapi.json")).json()["paths"]
    assert (await door.client.get(f"/models/{MODEL}/metrics")).status_code == 404


async def test_openmetrics_is_spoken_to_whoever_asks_for_it(door):
    reply = await door.client.get(
        "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    assert reply.text.endswith("# EOF\n")


def test_a_client_behind_a_proxy_is_not_taken_for_this_machine(tokenizer, tmp_path):
    with Live(tmp_path, tokenizer) as live:
        assert httpx2.get(f"{live.url}/metrics").status_code == 200
        for said in ("203.0.113.5", "127.0.0.1, 203.0.113.5", "2001:db8::7"):
            reply = httpx2.get(f"{live.url}/metrics", headers={"x-forwarded-for": said})
            assert reply.status_code == 403, said


async def test_every_metric_is_on_the_page_about_them(door):
    page = (ROOT / "docs" / "howto" / "watch-a-server.md").read_text(encoding="utf-8")
    families = text_string_to_metric_families((await door.client.get("/metrics")).text)
    names = {f"{each.name}_total" if each.type == "counter" else each.name for each in families}
    assert names == set(re.findall(r"`(transom_\w+)`", page.partition("### Who may read")[0]))


async def test_what_a_backend_does_is_shown_under_its_name(own_door):
    own_door.backend.shown = Activity(
        waiting=3, running=2, pages=100, pages_used=40, pages_cached=7, steps=9, step_seconds=1.5,
        batch_sequences=18, batch_tokens=90, layer_rows=180, prompt_tokens=70, generated_tokens=18,
        scored_tokens=5, prefix_queries=80, prefix_hits=10, preemptions=4, restarts=1,
    )  # fmt: skip
    shown = await scrape(own_door)
    assert {
        name[0].removeprefix("transom_"): value for name, value in shown.items() if name[1:] == (MODEL,)
    } == {
        "sequences_waiting": 3,
        "sequences_running": 2,
        "cache_pages": 100,
        "cache_used_pages": 40,
        "cache_cached_pages": 7,
        "model_ready": 1,
        "steps_total": 9,
        "step_seconds_total": 1.5,
        "batch_sequences_total": 18,
        "batch_tokens_total": 90,
        "layer_rows_total": 180,
        "prefix_cache_queried_tokens_total": 80,
        "prefix_cache_hit_tokens_total": 10,
        "preemptions_total": 4,
        "engine_restarts_total": 1,
        "time_to_first_token_seconds_count": 0,
        "time_to_first_token_seconds_sum": 0,
        "inter_token_latency_seconds_count": 0,
        "inter_token_latency_seconds_sum": 0,
        "e2e_latency_seconds_count": 0,
        "e2e_latency_seconds_sum": 0,
    }
    kinds = {kind: shown["transom_tokens_total", kind, MODEL] for kind in ("prompt", "generated", "scored")}
    assert kinds == {"prompt": 70, "generated": 18, "scored": 5}


async def test_durations_are_shown_as_histograms(own_door):
    latencies = Latencies()
    for seconds in (0.02, 0.02, 0.3, 1000.0):
        latencies.first_token.observe(seconds)
    own_door.backend.shown = Activity(latencies=latencies)
    shown = await scrape(own_door)
    name = "transom_time_to_first_token_seconds"
    assert [shown[f"{name}_bucket", bound, MODEL] for bound in ("0.01", "0.025", "0.25", "0.5", "300.0")] == [
        0, 2, 2, 3, 3,
    ]  # fmt: skip
    assert shown[f"{name}_bucket", "+Inf", MODEL] == shown[f"{name}_count", MODEL] == 4
    assert shown[f"{name}_sum", MODEL] == pytest.approx(1000.34)


async def test_requests_are_counted_by_their_route_and_status(own_door):
    record = (await own_door.complete(max_tokens=1))["id"]
    await own_door.post("/v1/completions", {"model": MODEL})
    await own_door.post(f"/models/{MODEL}/v1/completions", {"prompt": "hi"})
    await own_door.stream("/v1/chat/completions", messages=[{"role": "user", "content": "hi"}], max_tokens=1)
    await own_door.client.get(f"/v1/records/{record}")
    await own_door.client.get("/v1/records/made-up")
    await own_door.client.post(f"/models/{MODEL}/v1/records/{record}/replay")
    for path in ("/nothing", "/v1/nothing", "/models/nobody/else", "/a/b/c/d"):
        await own_door.client.get(path)
    await own_door.client.get("/models/typed-by-somebody/v1/models")
    shown = await scrape(own_door)
    assert {name[1:]: value for name, value in shown.items() if name[0] == "transom_requests_total"} == {
        ("/v1/completions", "200"): 2,
        ("/v1/completions", "400"): 1,
        ("/v1/chat/completions", "200"): 1,
        ("/v1/records/{id}", "200"): 1,
        ("/v1/records/{id}", "404"): 1,
        ("/v1/records/{id}/replay", "200"): 1,
        ("/v1/models", "404"): 1,
        ("other", "404"): 4,
    }


async def test_a_request_that_broke_is_counted_as_500(own_door, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(own_door.house, "served", fail)
    assert (await own_door.client.get("/v1/models")).status_code == 500
    assert (await scrape(own_door))["transom_requests_total", "/v1/models", "500"] == 1


async def test_refusals_for_want_of_room_are_counted_by_whose_limit_it_was(own_door):
    own_door.backend.room = WaitingRoom(MODEL, running=1, waiting=4)
    own_door.backend.room.admit("somebody", 3)
    body = {"model": MODEL, "prompt": "hi", "n": 3, "max_tokens": 1}
    for _ in range(2):
        assert (await own_door.post("/v1/completions", body)).status_code == 503
    shown = await scrape(own_door)
    assert shown["transom_overload_refusals_total", "queue", MODEL] == 2
    assert shown["transom_overload_refusals_total", "project", MODEL] == 0
    assert shown["transom_requests_total", "/v1/completions", "503"] == 2


async def test_a_model_that_is_not_ready_is_shown_as_that(own_door):
    own_door.backend.ready = False
    assert (await scrape(own_door))["transom_model_ready", MODEL] == 0


async def test_two_servers_in_one_process_do_not_count_together(door, tmp_path):
    one, other = (create_app(settings(tmp_path / name), backends={}) for name in ("one", "other"))
    one.state.metrics.answered("/x", 200)
    assert other.state.metrics.registry.get_sample_value("transom_requests_total") is None
    labels = {"endpoint": "/x", "status": "200"}
    assert one.state.metrics.registry.get_sample_value("transom_requests_total", labels) == 1
    assert other.state.metrics.registry.get_sample_value("transom_requests_total", labels) is None
