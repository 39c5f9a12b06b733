"""The local backend over an engine that is made up: it dies, hangs, lies and comes back on request."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict

import pytest
import structlog
from engine_standin import World, ask, expected

from tests.fakes import DIMENSIONS, make_deployment, make_root
from transom.backends import local
from transom.backends.local import Limits, LocalBackend
from transom.engine.messages import EngineOptions, Output, Outputs, Ready, Refused, Stats
from transom.errors import EngineBusy, EngineUnavailable, GenerationFailed, ModelRefused
from transom.schema.generation import TokenLogprob

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _quiet_logs():
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture
def checked(monkeypatch):
    """What stands in for the check of the model root."""
    monkeypatch.setattr(local, "verify", lambda root: make_deployment().model)
    monkeypatch.setattr(local, "_RESTART_PAUSES", (0.0, 0.0))


@pytest.fixture
def world(checked):
    return World()


@pytest.fixture
def make(root, world):
    def made(**limits):
        options = EngineOptions(root=str(root), max_num_seqs=2)
        return LocalBackend("m", options, Limits(**limits), start_engine=world.start)

    return made


@asynccontextmanager
async def serving(backend):
    await backend.start()
    try:
        yield backend
    finally:
        await backend.stop()


@pytest.fixture
async def backend(make):
    async with serving(make()) as made:
        yield made


async def answer(backend, request):
    """Its tokens, or the error that it ended with."""
    tokens = []
    try:
        async with aclosing(backend.generate(request)) as deltas:
            async for delta in deltas:
                tokens += [token.token_id for token in delta.tokens]
    except (EngineUnavailable, GenerationFailed) as error:
        return error
    assert delta.finish_reason == "length"
    return tokens


def asking(backend, requests):
    return [asyncio.create_task(answer(backend, request)) for request in requests]


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # what is waited for is inside the stand-in
            await asyncio.sleep(0.001)


class TestDeaths:
    async def test_every_sequence_goes_on_at_its_next_token(self, backend, world):
        requests = [ask(name, tokens=30) for name in "abc"]
        tasks = asking(backend, requests)
        await until(lambda: len(world.engine.done.get("a", ())) > 5)
        world.engine.die()
        assert await asyncio.gather(*tasks) == [expected(each) for each in requests]
        assert len(world.engines) == 2
        assert backend.activity.restarts == 1
        assert backend.activity.generated_tokens == 90

    async def test_it_is_not_ready_while_there_is_no_engine(self, backend, world):
        world.on_start = lambda engine: None
        assert backend.ready
        world.engine.die()
        assert not backend.ready
        task = asyncio.create_task(answer(backend, ask("a")))
        await until(lambda: len(world.engines) == 2 and backend.activity.waiting == 1)
        assert not backend.ready
        world.engine.say(Ready(make_deployment().profile.model_dump(), 256, DIMENSIONS))
        assert await task == expected(ask("a"))
        assert backend.ready

    async def test_an_engine_that_dies_as_soon_as_it_is_loaded_is_no_engine(self, make, world):
        def start(engine):
            engine.say(Ready(make_deployment().profile.model_dump(), 256, DIMENSIONS))
            engine.die(3)

        world.on_start = start
        backend = make()
        with pytest.raises(ModelRefused, match="status 3"):
            await backend.start()
        assert not backend.ready
        with pytest.raises(EngineUnavailable):
            backend.admit("p", 1)

    async def test_one_that_cannot_even_be_started_is_a_refusal(self, make, world, monkeypatch):
        def fail(*_):
            raise OSError("no memory to fork")

        monkeypatch.setattr(world, "start", fail)
        with pytest.raises(ModelRefused, match="no memory to fork"):
            await make().start()

    async def test_one_that_does_not_come_back_fails_those_who_wait_and_refuses_new_ones(
        self, backend, world
    ):
        tasks = asking(backend, [ask(name, tokens=500) for name in "ab"])
        await until(lambda: "b" in world.engine.here)
        world.on_start = lambda engine: engine.say(Refused("out of order"))
        world.engine.die()
        for error in await asyncio.gather(*tasks):
            assert isinstance(error, EngineUnavailable)
            assert "did not come back" in error.message
            assert "out of order" in error.message
        assert len(world.engines) == 3
        assert isinstance(await answer(backend, ask("c")), EngineUnavailable)
        with pytest.raises(EngineUnavailable):
            backend.admit("p", 1)

    async def test_an_engine_of_another_version_ends_the_waiting_and_not_the_server(self, backend, world):
        (task,) = asking(backend, [ask("a", tokens=500)])
        await until(lambda: world.engine.here)
        world.on_start = lambda engine: engine.say(Ready({"unheard_of": "1"}, 256, DIMENSIONS))
        world.engine.die()
        assert isinstance(await task, EngineUnavailable)
        assert all(engine.ended is not None for engine in world.engines)

    async def test_messages_of_an_engine_for_nobody_are_nobodys(self, backend, world):
        world.engine.say(Outputs([Output("nobody", [TokenLogprob(5, -1.0, 1)])]))
        assert await answer(backend, ask("a")) == expected(ask("a"))


class TestChangedModels:
    """What was served is served again, or nothing is."""

    async def test_a_folder_that_was_changed_is_not_served_after_a_death(self, backend, world, monkeypatch):
        def refuse(root):
            raise ModelRefused("model.safetensors differs from the manifest")

        (task,) = asking(backend, [ask("a", tokens=500)])
        await until(lambda: "a" in world.engine.here)
        monkeypatch.setattr(local, "verify", refuse)
        world.engine.die()
        error = await task
        assert isinstance(error, EngineUnavailable)
        assert "model.safetensors differs" in error.message
        assert len(world.engines) == 1
        assert not backend.ready

    async def test_a_whole_other_model_in_its_place_is_not_served_either(self, backend, world, monkeypatch):
        other = make_deployment().model.model_copy(update={"tensor_count": 9})
        (task,) = asking(backend, [ask("a", tokens=500)])
        await until(lambda: "a" in world.engine.here)
        monkeypatch.setattr(local, "verify", lambda root: other)
        world.engine.die()
        assert "another deployment" in (await task).message
        assert all(engine.ended is not None for engine in world.engines)
        assert all(engine.sent == [] for engine in world.engines[1:])
        assert not backend.ready

    async def test_an_engine_with_another_profile_is_not_believed(self, backend, world):
        changed = make_deployment("made-up/2").profile.model_dump()
        world.on_start = lambda engine: engine.say(Ready(changed, 256, DIMENSIONS))
        (task,) = asking(backend, [ask("a", tokens=500)])
        await until(lambda: "a" in world.engine.here)
        world.engine.die()
        assert "another deployment" in (await task).message
        assert all(engine.ended is not None for engine in world.engines)


class TestHangs:
    async def test_silence_with_work_to_do_ends_the_engine_and_not_the_answer(self, make, world):
        async with serving(make(hang_seconds=0.1)) as backend:
            request = ask("a", tokens=30)
            (task,) = asking(backend, [request])
            await until(lambda: len(world.engine.done.get("a", ())) > 5)
            world.silent = True
            await until(lambda: len(world.engines) == 2)
            world.silent = False
            assert await task == expected(request)
            assert backend.activity.restarts == 1

    async def test_a_heartbeat_is_enough_of_a_word(self, make, world):
        async with serving(make(hang_seconds=0.2)) as backend:
            (task,) = asking(backend, [ask("a", tokens=30)])
            await until(lambda: world.engine.here)
            world.silent = world.heartbeat = True
            await asyncio.sleep(0.6)
            assert len(world.engines) == 1
            world.silent = False
            assert await task == expected(ask("a", tokens=30))

    async def test_an_engine_without_work_may_be_silent(self, make, world):
        async with serving(make(hang_seconds=0.1)) as backend:
            assert await answer(backend, ask("a")) == expected(ask("a"))
            left = backend.generate(ask("b", tokens=500))
            await anext(left)
            await left.aclose()
            await asyncio.sleep(0.3)
            assert len(world.engines) == 1

    async def test_nor_is_one_that_has_finished_what_nobody_fetches(self, make, world):
        async with serving(make(hang_seconds=0.1)) as backend, aclosing(backend.generate(ask("a"))) as unread:
            await anext(unread)
            await asyncio.sleep(0.3)
            assert len(world.engines) == 1

    async def test_a_sequence_that_hangs_every_engine_is_found_and_told_so(self, make, world):
        async with serving(make(hang_seconds=0.05)) as backend:
            world.silent = True
            (error,) = await asyncio.gather(*asking(backend, [ask("a")]))
            assert isinstance(error, GenerationFailed)
            assert "it hung" in error.message
            assert len(world.engines) == 3

    async def test_an_engine_that_never_gets_ready_is_refused_in_the_end(self, make, world):
        world.on_start = lambda engine: None
        with pytest.raises(ModelRefused, match=r"not ready after 0\.05 s.*TRANSOM_ENGINE_LOAD_SECONDS"):
            await make(load_seconds=0.05).start()
        assert world.engine.ended is not None


class TestProbation:
    """Whoever kills the engine is failed, and nobody else."""

    async def test_only_the_sequence_that_kills_the_engine_is_failed(self, backend, world):
        innocent = [ask(name, tokens=20) for name in "abcd"]
        tasks = asking(backend, [*innocent[:2], ask("bad", poison=True), *innocent[2:]])
        a, b, error, c, d = await asyncio.gather(*tasks)
        assert [a, b, c, d] == [expected(each) for each in innocent]
        assert isinstance(error, GenerationFailed)
        assert "died 3 times" in error.message
        assert "status -9" in error.message
        assert [len(each) for each in world.together[:2]] == [5, 5]
        assert world.together[2] == {"bad"}
        assert backend.activity.restarts == 3

    async def test_two_that_kill_it_are_both_found(self, backend, world):
        innocent = [ask(name, tokens=20) for name in "abc"]
        bad = [ask(name, poison=True) for name in ("bad", "worse")]
        *told, first, second = await asyncio.gather(*asking(backend, [*innocent, *bad]))
        assert told == [expected(each) for each in innocent]
        assert isinstance(first, GenerationFailed)
        assert isinstance(second, GenerationFailed)
        assert world.together[2] == {"bad"}
        assert world.together[-1] == {"worse"}

    async def test_who_asks_meanwhile_waits_and_is_answered(self, backend, world):
        tasks = asking(backend, [ask("a", tokens=60), ask("bad", poison=True)])
        await until(lambda: len(world.engines) == 3 and world.engine.sent == ["a"])
        late = ask("late")
        tasks += asking(backend, [late])
        a, error, told = await asyncio.gather(*tasks)
        assert (a, told) == (expected(ask("a", tokens=60)), expected(late))
        assert isinstance(error, GenerationFailed)
        assert world.together[2] == {"bad"}

    async def test_nothing_else_is_with_the_engine_while_a_suspect_runs(self, backend, world):
        tasks = asking(backend, [ask(name, tokens=20) for name in "abc"])
        for engines in (1, 2):
            await until(lambda n=engines: len(world.engines) == n and len(world.engine.here) == 3)
            world.engine.die()
        await until(lambda: len(world.engines) == 3)
        seen = Counter()
        tasks += asking(backend, [ask("late", tokens=3)])
        while not all(task.done() for task in tasks):
            seen[len(world.engine.here)] += 1
            await asyncio.sleep(0)
        assert set(seen) <= {0, 1}
        assert world.engine.sent == ["a", "b", "c", "late"]

    async def test_a_suspect_whose_client_leaves_makes_way(self, backend, world):
        leaving = backend.generate(ask("a", tokens=500))
        await anext(leaving)
        (task,) = asking(backend, [ask("b", tokens=500)])
        for engines in (1, 2):
            await until(lambda n=engines: len(world.engines) == n and "b" in world.engine.here)
            world.engine.die()
        await until(lambda: len(world.engines) == 3 and world.engine.sent == ["a"])
        await leaving.aclose()
        assert await task == expected(ask("b", tokens=500))
        assert world.engine.heard == ["+a", "-a", "+b"]


class TestNumbers:
    async def test_the_newest_word_of_the_engine_is_kept_and_none_is_lost_with_it(self, backend, world):
        world.engine.say(Stats(steps=10, running=0, pages=7, prefix_hits=3))
        world.engine.say(Stats(steps=12, running=0, pages=7, prefix_hits=4))
        assert (backend.activity.steps, backend.activity.pages) == (12, 7)
        world.engine.die()
        await until(lambda: backend.ready)
        world.engine.say(Stats(steps=1, pages=7))
        assert (backend.activity.steps, backend.activity.prefix_hits) == (13, 4)

    async def test_what_was_taken_and_does_not_run_waits(self, backend, world):
        world.silent = True
        tasks = asking(backend, [ask(name) for name in "abc"])
        await until(lambda: len(world.engine.here) == 3)
        world.engine.say(Stats(running=2, waiting=1))
        assert (backend.activity.running, backend.activity.waiting) == (2, 1)
        world.silent = False
        await asyncio.gather(*tasks)
        assert (backend.activity.running, backend.activity.waiting) == (0, 0)

    async def test_waits_are_measured_as_tokens_arrive(self, backend):
        await asyncio.gather(*asking(backend, [ask(name, tokens=5) for name in "abc"]))
        latencies = backend.activity.latencies
        assert latencies.first_token.cumulative[-1] == 3
        assert latencies.between_tokens.cumulative[-1] == 3 * 4
        assert latencies.whole.cumulative[-1] == 3
        assert 0 < latencies.first_token.total <= latencies.whole.total

    async def test_a_refusal_for_want_of_room_is_counted(self, make):
        async with serving(make(max_queue=4)) as backend:
            assert backend.max_sequences == 4
            backend.admit("p", 4)
            for _ in range(2):
                with pytest.raises(EngineBusy):
                    backend.admit("p", 1)
            assert backend.activity.refusals == {"queue": 0, "project": 2}

    async def test_everything_that_is_counted_is_there_before_anything_happened(self, make):
        assert all(not value for name, value in asdict(make().activity).items() if isinstance(value, int))


class TestEndings:
    async def test_stopping_ends_every_sequence_with_a_word_on_why(self, backend, world):
        tasks = asking(backend, [ask(name, tokens=500) for name in "ab"])
        await until(lambda: len(world.engine.here) == 2)
        await backend.stop()
        for error in await asyncio.gather(*tasks):
            assert isinstance(error, EngineUnavailable)
            assert "shutting down" in error.message
        assert world.engine.ended == 0
        await backend.stop()
        assert len(world.engines) == 1

    async def test_nothing_is_taken_before_the_start_nor_after_the_stop(self, make):
        backend = make()
        with pytest.raises(EngineUnavailable):
            backend.admit("p", 1)
        async with serving(backend):
            backend.admit("p", 1).close()
        with pytest.raises(EngineUnavailable):
            backend.admit("p", 1)
        assert isinstance(await answer(backend, ask("a")), EngineUnavailable)

    async def test_stopping_while_it_restarts_starts_nothing_more(self, backend, world):
        world.on_start = lambda engine: None
        (task,) = asking(backend, [ask("a", tokens=500)])
        await until(lambda: world.engine.here)
        world.engine.die()
        await until(lambda: len(world.engines) == 2)
        await backend.stop()
        assert isinstance(await task, EngineUnavailable)
        await asyncio.sleep(0.02)
        assert [engine.ended is None for engine in world.engines] == [False, False]
