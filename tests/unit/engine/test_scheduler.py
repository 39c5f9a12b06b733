"""Seats, pages, chunks and turns; and that everybody's turn comes."""

import pytest
from scheduler_driver import StandInEngine, ask, generated_alone

from transom.engine.chunks import Chunk
from transom.engine.scheduler import Scheduler
from transom.engine.sequence import Sequence


def shape(chunks):
    return [(chunk.sequence.sequence_id, chunk.start, chunk.length) for chunk in chunks]


def all_finished(engine):
    assert engine.scheduler.idle
    assert engine.scheduler.pages_used == 0
    for answer in engine.answers.values():
        assert answer.finished
        assert answer.tokens == generated_alone(answer.request)
    return True


def test_an_empty_house_is_idle_and_has_nothing_to_run():
    scheduler = Scheduler(pages=8, max_num_seqs=2, max_num_batched_tokens=16)
    assert scheduler.idle
    assert scheduler.schedule() == []
    assert (scheduler.pages, scheduler.pages_used, scheduler.pages_cached) == (7, 0, 0)


def test_prompts_are_cut_to_the_step_and_finished_one_after_the_other():
    engine = StandInEngine(max_num_batched_tokens=30)
    for name in "xyz":
        engine.submit(ask([ord(name)] * 40, name=name))
    assert shape(engine.step()) == [("x", 0, 30)]
    assert shape(engine.step()) == [("x", 30, 10), ("y", 0, 20)]
    assert shape(engine.step()) == [("y", 20, 20), ("z", 0, 10)]
    engine.run()
    assert all_finished(engine)


def test_prompts_come_first_and_nobody_who_generates_waits_for_long():
    engine = StandInEngine(max_num_batched_tokens=4)
    engine.submit(ask([2], 20, name="generates"))
    engine.step()
    engine.submit(ask([1] * 24, name="prompt"))
    turns = [shape(engine.step()) for _ in range(6)]
    assert [[name for name, _, _ in turn] for turn in turns] == [
        ["prompt"],
        ["prompt"],
        ["prompt"],
        ["generates", "prompt"],
        ["prompt"],
        ["prompt"],
    ]
    assert turns[3][1][2] == 3
    engine.run()
    assert all_finished(engine)


def test_seats_are_never_exceeded_and_first_come_is_first_served():
    engine = StandInEngine(max_num_seqs=3)
    for index in range(9):
        engine.submit(ask([index] * 3, 5, name=str(index)))
    engine.run()
    first = [answer.times[0] for answer in engine.answers.values()]
    assert first == sorted(first)
    assert all_finished(engine)


def test_a_prompt_as_large_as_the_cache_is_served():
    engine = StandInEngine(pages=5)
    engine.submit(ask(range(64), 0, prompt_logprobs=0))
    engine.submit(ask(range(64), 0))
    engine.submit(ask(range(60), 4))
    engine.run()
    assert all_finished(engine)


@pytest.mark.parametrize("caching", [True, False])
def test_a_sequence_that_outgrows_the_cache_is_an_error_and_not_a_standstill(caching):
    scheduler = Scheduler(pages=3, max_num_seqs=2, max_num_batched_tokens=64, prefix_caching=caching)
    sequence = Sequence(ask([1] * 33))
    scheduler.add(sequence)
    with pytest.raises(RuntimeError, match="33 tokens is longer than the whole cache"):
        scheduler.schedule()
    scheduler.remove(sequence)
    assert scheduler.idle


def test_one_page_serves_one_sequence_after_the_other():
    engine = StandInEngine(pages=2)
    for index in range(4):
        engine.submit(ask([index] * 3, 13))
    engine.run()
    assert all_finished(engine)


def test_a_large_sequence_is_not_overtaken_for_ever():
    engine = StandInEngine(pages=11, max_num_seqs=8)
    engine.submit(ask([0] * 30, 20, project="b"))
    engine.submit(ask([1] * 130, 4, name="large", project="a"))
    for index in range(2, 60):
        engine.submit(ask([index] * 14, 8, project="b"))
    engine.run()
    assert all_finished(engine)
    before = [a for a in engine.answers.values() if a.times[-1] < engine.answers["large"].times[0]]
    assert len(before) < 20


def test_the_youngest_of_the_most_served_project_makes_room_for_growth():
    engine = StandInEngine(pages=9, max_num_seqs=8)
    engine.submit(ask([1] * 30, 60, name="a1", project="a"))
    engine.submit(ask([2] * 30, 60, name="b1", project="b"))
    engine.submit(ask([3] * 30, 60, name="b2", project="b"))
    while not engine.scheduler.preemptions:
        engine.step()
    assert {s.sequence_id for s in engine.scheduler.sequences if not s.pages} == {"b2"}
    assert engine.scheduler.preemptions == 1
    engine.run()
    assert all_finished(engine)


def test_a_project_below_its_share_takes_seats_from_the_one_that_holds_most():
    engine = StandInEngine(max_num_seqs=6, pages=200)
    for index in range(12):
        engine.submit(ask([index] * 4, 100, project="flood"))
    for _ in range(4):
        engine.step()
    for index in range(6):
        engine.submit(ask([100 + index] * 4, 100, project="guest"))
    for _ in range(6):
        engine.step()
    seats = [s.request.project for s in engine.scheduler.sequences if s.pages]
    assert sorted(seats) == ["flood"] * 3 + ["guest"] * 3
    assert engine.scheduler.preemptions == 3
    for _ in range(30):
        engine.step()
    # And nobody is sent to and fro afterwards.
    assert engine.scheduler.preemptions == 3
    engine.run()
    assert all_finished(engine)


def test_a_project_below_its_share_takes_pages_from_the_one_that_holds_most():
    engine = StandInEngine(pages=41, max_num_seqs=64, max_num_batched_tokens=512)
    for index in range(20):
        engine.submit(ask([index] * 60, 100, project="flood"))
    for _ in range(4):
        engine.step()
    before = engine.scheduler.preemptions
    # Nearly as many pages as one of the flood, and no more rows than a short step has.
    engine.submit(ask([99] * 35, 20, project="guest", name="guest"))
    engine.step()
    assert engine.answers["guest"].times
    assert engine.scheduler.preemptions > before
    engine.run()
    assert all_finished(engine)


def holding(engine):
    return sorted(s.sequence_id for s in engine.scheduler.sequences[: engine.scheduler.running])


@pytest.mark.parametrize(("others", "asked", "given"), [(0, 250, True), (0, 330, False), (1, 220, False)])
def test_no_more_is_taken_than_an_equal_share(others, asked, given):
    engine = StandInEngine(pages=41, max_num_seqs=64, max_num_batched_tokens=512)
    for index in range(others):
        engine.submit(ask([50 + index] * 8, 100, project=f"other{index}"))
    for index in range(20):
        engine.submit(ask([index] * 20, 60, project="flood"))
    for _ in range(4):
        engine.step()
    before = engine.scheduler.preemptions
    engine.submit(ask([99] * asked, 4, project="guest"))
    engine.step()
    # Forty pages: of two projects each may ask for twenty, of three for thirteen.
    assert (engine.scheduler.preemptions > before) == given
    engine.run()
    assert all_finished(engine)


def test_an_only_large_sequence_does_not_give_way_to_a_smaller_one_for_ever():
    engine = StandInEngine(pages=11, max_num_batched_tokens=512)
    engine.submit(ask([1] * 120, 30, project="a", name="large"))
    for _ in range(4):
        engine.step()
    for index in range(5):
        engine.submit(ask([50 + index] * 40, 8, project="b"))
    engine.run()
    assert engine.scheduler.preemptions == 0
    assert all_finished(engine)


def test_only_those_who_got_a_token_give_way_to_another_project():
    engine = StandInEngine(max_num_seqs=2, max_num_batched_tokens=16, pages=200)
    engine.submit(ask([1] * 8, 100, project="flood", name="moved"))
    engine.step()
    engine.submit(ask([2] * 400, 10, project="flood", name="prompt"))
    engine.step()
    engine.submit(ask([3] * 4, 5, project="guest", name="guest"))
    engine.step()
    # The one that came last has still to get through its prompt, and would start over from nothing.
    assert holding(engine) == ["guest", "prompt"]
    engine.run()
    assert all_finished(engine)


def test_prompts_admitted_by_right_are_computed_one_after_the_other():
    # So few rows that every step is a short one.
    engine = StandInEngine(max_num_seqs=4, max_num_batched_tokens=34, pages=200)
    for index in range(4):
        engine.submit(ask([index] * 4, 100, project="flood"))
    engine.step()
    for name in "xy":
        engine.submit(ask([ord(name)] * 30, 5, project="guest", name=name))
    assert shape(engine.step()) == [("x", 0, 30), ("y", 0, 4)]
    engine.run()
    assert all_finished(engine)


def test_seats_are_shared_among_all_projects_that_are_there():
    engine = StandInEngine(max_num_seqs=9, pages=200)
    for project, count in (("c", 1), ("a", 20), ("b", 20)):
        for index in range(count):
            engine.submit(ask([index] * 4, 200, project=project, name=f"{project}{index}"))
        for _ in range(8):
            engine.step()
    # Three for each; what the third leaves stays with the first, who had it before.
    assert [name[0] for name in holding(engine)] == [*"aaaaa", *"bbb", "c"]
    engine.run()
    assert all_finished(engine)


def test_who_holds_most_gives_and_the_least_served_takes():
    engine = StandInEngine(max_num_seqs=8, pages=200, max_num_batched_tokens=512)
    for project, count in (("a", 3), ("b", 5)):
        for index in range(count):
            engine.submit(ask([index] * 4, 200, project=project, name=f"{project}{index}"))
    for _ in range(4):
        engine.step()
    for lane in engine.scheduler._lanes:
        lane.counter = 1000
    for project, served in (("c", 500), ("d", 400), ("e", 600), ("f", 700), ("g", 300)):
        engine.submit(ask([9] * 4, 200, project=project, name=project))
        engine.scheduler._lanes.of(engine.scheduler.find(project)).counter = served
    engine.step()
    # Eight seats for seven projects: four of them are waited for, one has to wait on.
    assert [name[0] for name in holding(engine)] == ["a", "a", "b", "b", "c", "d", "e", "g"]
    engine.run()
    assert all_finished(engine)


def test_batch_work_takes_nothing_from_batch_work_while_something_interactive_waits():
    engine = StandInEngine(pages=41, max_num_seqs=8, max_num_batched_tokens=512)
    for index in range(4):
        engine.submit(ask([2 + index] * 65, 60, project="b", priority="batch", name=f"b{index}"))
    engine.step()
    engine.submit(ask([1] * 270, 200, project="a", name="large"))
    while not engine.answers["large"].tokens:
        engine.step()
    assert engine.scheduler.pages_used == 20 + 17
    engine.submit(ask([4] * 380, 4, project="a", name="waits"))
    engine.submit(ask([5] * 40, 4, project="c", priority="batch", name="c"))
    engine.step()
    assert "c" not in holding(engine)
    assert engine.scheduler.preemptions == 0
    engine.run()
    assert all_finished(engine)


def test_an_admission_leaves_a_little_room_to_grow():
    engine = StandInEngine(pages=37, max_num_batched_tokens=600)
    engine.submit(ask([1] * 511, 2))
    engine.step()
    assert engine.scheduler.pages_used == 32
    engine.submit(ask([2] * 40, 2, name="large"))
    assert len(engine.step()) == 1
    engine.abort("large")
    engine.submit(ask([3] * 30, 2))
    engine.run()
    assert all_finished(engine)


def test_what_others_leave_of_a_step_is_dealt_evenly():
    engine = StandInEngine(check=False, max_num_seqs=64, pages=1000, max_num_batched_tokens=512)
    for project, count in (("light", 1), ("x", 30), ("y", 30)):
        for index in range(count):
            # One row each: rows of longer prompts come in larger portions and cost less than tokens.
            engine.submit(ask([index], 1000, project=project))
    for _ in range(30):
        engine.step()
    for row in engine.rows[-20:]:
        if row["light"] + row.get("x", 0) + row.get("y", 0) < 30:
            assert abs(row["x"] - row["y"]) <= 1
    assert sum(row["light"] for row in engine.rows[-20:]) == 20


def test_interactive_work_takes_seats_and_pages_from_batch_work_at_once():
    engine = StandInEngine(pages=31, max_num_seqs=4, max_num_batched_tokens=512)
    for index in range(8):
        engine.submit(ask([index] * 100, 30, project="a", priority="batch"))
    for _ in range(3):
        engine.step()
    # Seats and pages are short, and a short step has rows for all three prompts.
    assert (engine.scheduler.running, engine.scheduler.pages_used) == (4, 28)
    for index in range(3):
        engine.submit(ask([50 + index] * 11, 30, project="a", name=f"i{index}"))
    engine.step()
    assert all(len(engine.answers[f"i{index}"].tokens) == 1 for index in range(3))
    engine.run()
    assert all_finished(engine)


def test_everybody_finishes_where_everything_is_short():
    """Nobody is sent to and fro for ever: two classes, four projects, few seats and few pages."""
    engine = StandInEngine(pages=13, max_num_seqs=3, max_num_batched_tokens=24)
    for index in range(60):
        engine.submit(
            ask(
                [index] * (1 + index * 7 % 120),
                1 + index * 11 % 60,
                project="abcd"[index % 4],
                priority="batch" if index % 5 == 0 else "interactive",
                prompt_logprobs=index % 3 or None,
            )
        )
    engine.run(20_000)
    assert engine.scheduler.preemptions > 0
    assert all_finished(engine)


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_aborts_are_final_wherever_the_sequence_is(steps):
    engine = StandInEngine(max_num_seqs=2, max_num_batched_tokens=16)
    names = [engine.submit(ask([index] * 40, 10, name=str(index))) for index in range(5)]
    for _ in range(steps):
        engine.step()
    for name in (names[4], names[0], names[2]):
        engine.abort(name)
        assert engine.scheduler.find(name) is None
        engine.check_house()
    engine.run()
    assert len(engine.answers) == 2
    assert all_finished(engine)


def test_a_name_is_found_while_it_is_here_and_may_not_be_taken_twice():
    scheduler = Scheduler(pages=8, max_num_seqs=2, max_num_batched_tokens=16)
    sequence = Sequence(ask([1], name="x"))
    scheduler.add(sequence)
    assert scheduler.find("x") is sequence
    assert scheduler.find("y") is None
    with pytest.raises(ValueError, match="x is here already"):
        scheduler.add(Sequence(ask([1], name="x")))
    assert (scheduler.waiting, scheduler.running) == (1, 0)
    scheduler.schedule()
    assert (scheduler.waiting, scheduler.running) == (0, 1)
    assert scheduler.sequences == [sequence]


def test_a_step_moves_nothing_until_it_is_reported_as_finished():
    scheduler = Scheduler(pages=8, max_num_seqs=2, max_num_batched_tokens=16)
    sequence = Sequence(ask([1] * 20))
    scheduler.add(sequence)
    chunks = scheduler.schedule()
    scheduler.failed_step(chunks)
    assert sequence.computed == 0
    chunks = scheduler.schedule()
    assert sequence.computed == 0
    scheduler.finished_step(chunks, 0.1)
    assert sequence.computed == 16
    # One that nobody answered for has failed.
    assert scheduler.schedule() == scheduler.schedule() == [Chunk(sequence, 16, 4)]
