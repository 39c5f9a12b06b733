"""Counters lift and forget; the model of step times learns; and floods do not drown their neighbours."""

import random

import pytest
from scheduler_driver import StandInEngine, ask

from transom.engine.fairness import GENTLE, STRETCH, Lanes, StepTimes
from transom.engine.sequence import Sequence

# Counters of those who are active, and of those who were.


def arrive(lanes, project, priority="interactive"):
    sequence = Sequence(ask([1], project=project, priority=priority))
    lanes.add(sequence)
    return sequence


def test_a_project_that_becomes_active_starts_where_the_least_served_is():
    lanes = Lanes()
    lanes.of(arrive(lanes, "a")).counter = 500
    lanes.of(arrive(lanes, "b")).counter = 300
    assert lanes.of(arrive(lanes, "c")).counter == 300


def test_what_a_project_was_served_beyond_the_others_is_remembered():
    lanes = Lanes()
    lanes.of(arrive(lanes, "a")).counter = 100
    greedy = arrive(lanes, "b")
    lanes.of(greedy).counter = 900
    lanes.remove(greedy)
    assert lanes.of(arrive(lanes, "b")).counter == 900


def test_idle_time_earns_nothing():
    lanes = Lanes()
    busy, idle = arrive(lanes, "a"), arrive(lanes, "b")
    lanes.of(idle).counter = 50
    lanes.remove(idle)
    lanes.of(busy).counter = 700
    assert lanes.of(arrive(lanes, "b")).counter == 700


def test_all_start_equal_after_nobody_was_there():
    lanes = Lanes()
    both = arrive(lanes, "a"), arrive(lanes, "b")
    lanes.of(both[0]).counter = 900
    lanes.remove(both[0])
    lanes.remove(both[1])
    assert lanes.of(arrive(lanes, "b")).counter == lanes.of(arrive(lanes, "a")).counter


def test_batch_work_is_counted_apart():
    lanes = Lanes()
    lanes.of(arrive(lanes, "a", "batch")).counter = 900
    assert lanes.of(arrive(lanes, "a")).counter == 0


def test_projects_that_stay_away_are_forgotten():
    lanes = Lanes()
    host = arrive(lanes, "host")
    for index in range(20_000):
        guest = arrive(lanes, f"guest{index}")
        lanes.of(guest).counter += 100
        lanes.remove(guest)
        lanes.of(host).counter += 2
    # Each is remembered for the fifty visits that the host needs to overtake it, or a little longer.
    assert len(lanes._departed) < 300


def test_a_sequence_that_is_put_back_waits_at_the_place_of_its_arrival():
    lanes = Lanes()
    sequences = [arrive(lanes, "a") for _ in range(5)]
    for place, sequence in enumerate(sequences):
        sequence.arrival = place
    (lane,) = lanes
    for _ in range(3):
        lanes.seat(lane)
    for place in (2, 0, 1):
        lanes.put_back(sequences[place])
    assert list(lane.waiting) == sequences


# Step times.


def test_before_the_first_step_time_is_guessed():
    times = StepTimes()
    assert times.seconds(16) == 2 * times.seconds(0)
    # 1.25 * (1 + 1/16) is the time of 5.25 rows.
    assert times.most_rows(1, 512) == 5


def test_times_are_learnt_and_straight_between_what_is_known():
    times = StepTimes()
    for _ in range(50):
        times.observe(8, 0.1)
        times.observe(16, 0.3)
    assert times.seconds(8) == pytest.approx(0.1)
    assert times.seconds(12) == pytest.approx(0.2)
    assert times.seconds(4) < 0.1
    assert times.seconds(64) > 0.3
    assert times.most_rows(8, 512) == 9


def test_times_never_fall_with_more_rows():
    times, chance = StepTimes(), random.Random(0)
    for _ in range(500):
        times.observe(chance.randint(1, 512), chance.random())
    seconds = [times.seconds(rows) for rows in range(1, 600)]
    assert seconds == sorted(seconds)


def test_a_slow_first_step_is_outweighed():
    times = StepTimes()
    times.observe(8, 100.0)
    for _ in range(60):
        times.observe(8, 1.0)
    assert times.seconds(8) < 2


def test_a_clock_that_stands_still_teaches_nothing():
    times = StepTimes()
    times.observe(8, 0.0)
    times.observe(0, 1.0)
    assert times.seconds(0) == 1


@pytest.mark.parametrize(("rows", "most"), [(1, 1), (512, 512), (5, 512), (500, 512)])
def test_a_step_may_always_have_the_rows_it_is_measured_by(rows, most):
    times = StepTimes()
    found = times.most_rows(rows, most)
    assert rows <= found <= most
    assert times.seconds(found) <= STRETCH * times.seconds(rows)


# What a flood does to the others, on a clock where a step of n rows takes 1 + n / 16.


def house(**options):
    return StandInEngine(
        check=False, **{"pages": 4000, "max_num_seqs": 64, "max_num_batched_tokens": 512} | options
    )


def flood(engine, count=64, project="flood", prompt=200, tokens=400, **kwargs):
    for index in range(count):
        engine.submit(ask([1000 + index] * prompt, tokens, project=project, **kwargs))


def visits(engine, count=10, prompt=20, tokens=20):
    """A guest's requests, one after the other: the time each took."""
    taken = []
    for index in range(count):
        name = engine.submit(ask([index] * prompt, tokens, project="guest"))
        arrived = engine.now
        while not engine.answers[name].finished:
            engine.step()
        taken.append(engine.now - arrived)
    return taken


@pytest.mark.parametrize("count", [64, 500])
def test_a_guest_of_a_flooded_house_is_served_nearly_as_if_alone(count):
    alone = visits(house())
    engine = house()
    flood(engine, count)
    for _ in range(40):
        engine.step()
    assert engine.scheduler.running == 64
    crowded = visits(engine)
    assert max(crowded) < 2 * alone[0]
    # And its first rows come with the next step, whoever sits there.
    guests = [answer for answer in engine.answers.values() if answer.request.project == "guest"]
    assert max(answer.moved[0] - answer.arrived_step for answer in guests) == 1


def test_prompts_of_a_flood_hold_a_guest_up_as_little():
    alone = visits(house())
    engine = house()
    flood(engine, 200, prompt=1000, tokens=50)
    for _ in range(40):
        engine.step()
    first, *later = visits(engine)
    # Only the first guest after a while comes in the middle of a long step, which takes 33.
    assert first < 2 * alone[0] + 33
    assert max(later) < 2 * alone[0]


def generating(count, project="guest", **kwargs):
    """A house in which a project generates."""
    engine = house()
    flood(engine, count, project=project, prompt=4, tokens=600, **kwargs)
    for _ in range(4):
        engine.step()
    return engine


@pytest.mark.parametrize("count", [2, 8, 24])
def test_a_flood_of_prompts_mostly_makes_steps_little_longer_for_those_who_generate(count):
    engine = generating(count)
    flood(engine, 200, prompt=1000, tokens=1)
    steps = [engine.step() for _ in range(400)]
    rows = [sum(chunk.length for chunk in chunks) for chunks in steps]
    # Whoever comes in between takes up to STRETCH times that.
    longer = [each for each in rows if 1 + each / 16 > STRETCH * GENTLE * (1 + count / 16) + 1e-9]
    assert len(longer) <= 400 / 64 + 1
    # The flood gets on, no worse than they do.
    tokens = sum(chunk.sequence.request.project == "guest" for chunks in steps for chunk in chunks)
    assert sum(rows) - tokens > tokens


def test_few_who_generate_are_in_every_step_beside_a_flood_of_prompts():
    engine = generating(8)
    flood(engine, 200, prompt=1000, tokens=1)
    for _ in range(400):
        engine.step()
    assert {row["guest"] for row in engine.rows[-400:]} == {8}


def test_being_brought_along_leaves_no_debt():
    engine = generating(8)
    flood(engine, 200, prompt=1000, tokens=1)
    for _ in range(400):
        engine.step()
    name = engine.submit(ask([7] * 20, 1, project="guest"))
    asked = engine.steps
    while not engine.answers[name].finished:
        engine.step()
    assert engine.steps - asked < 8


def test_seats_that_come_free_are_for_those_who_have_less_than_their_share():
    engine = house(max_num_seqs=4, max_num_batched_tokens=16)
    # Who only has a prompt computed gives no seat up for others.
    flood(engine, 40, prompt=60, tokens=0)
    for _ in range(4):
        engine.step()
    flood(engine, 2, project="guest", prompt=4, tokens=100)
    while (
        sum(s.request.project == "guest" for s in engine.scheduler.sequences[: engine.scheduler.running]) < 2
    ):
        engine.step()
        waiting = [s for s in engine.scheduler.sequences if s.request.project == "flood"]
        assert len(waiting) > 30


def test_a_project_does_not_spare_its_own():
    engine = generating(4, "flood")
    for project in ("flood", "guest"):
        flood(engine, 20, project=project, prompt=1000, tokens=1)
    for _ in range(100):
        engine.step()
    # Its prompts fill a short step; those of the other make way for the four that generate.
    assert max(row.get("flood", 0) for row in engine.rows[-90:]) == 35
    assert {sum(row.values()) for row in engine.rows[-90:] if row.get("flood", 0) < 12} == {16}


def test_interactive_prompts_do_not_spare_batch_work():
    engine = generating(8, "batch", priority="batch")
    flood(engine, 20, prompt=1000, tokens=1)
    rows = [engine.step() for _ in range(100)]
    own = [sum(c.length for c in chunks if c.sequence.request.project == "flood") for chunks in rows]
    assert set(own) == {47}


def test_long_steps_come_back_when_no_guest_has_come_for_a_while():
    engine = house()
    flood(engine, 200, prompt=1000, tokens=50)
    visits(engine, count=1)
    lengths = [sum(chunk.length for chunk in engine.step()) for _ in range(20)]
    assert lengths[0] <= 64
    assert lengths[-1] == 512


def test_a_guest_gets_at_least_its_share_while_it_asks_for_it():
    engine = house()
    flood(engine)
    for _ in range(20):
        engine.step()
    start = engine.steps
    flood(engine, 64, project="guest", prompt=20, tokens=50)
    while sum(not answer.finished for answer in engine.answers.values()) > 64:
        engine.step()
    served = {"flood": 0, "guest": 0}
    for row in engine.rows[start:]:
        for project, rows in row.items():
            served[project] += rows
    assert served["guest"] >= 0.45 * sum(served.values())


@pytest.mark.parametrize("projects", [2, 3, 5])
def test_equal_floods_are_served_equally(projects):
    engine = house()
    names = [f"p{index}" for index in range(projects)]
    for name in names:
        flood(engine, 64, project=name, tokens=1000)
    for _ in range(600):
        engine.step()
    rows = [sum(row.get(name, 0) for row in engine.rows[100:]) for name in names]
    assert max(rows) - min(rows) < 0.05 * max(rows) + 512
    seats = [sum(s.request.project == name for s in engine.scheduler.sequences if s.pages) for name in names]
    assert max(seats) - min(seats) <= 1


def test_a_flood_of_long_prompts_and_one_of_long_answers_are_served_equally():
    engine = house()
    flood(engine, 300, project="prompts", prompt=1000, tokens=1)
    flood(engine, 300, project="answers", prompt=1, tokens=1000)
    for _ in range(600):
        engine.step()
    prompts = sum(row.get("prompts", 0) for row in engine.rows)
    answers = sum(row.get("answers", 0) * 2 for row in engine.rows)
    assert abs(prompts - answers) < 0.1 * max(prompts, answers) + 1024


def test_none_of_a_floods_own_sequences_is_forgotten():
    engine = house()
    flood(engine, 64, prompt=5, tokens=100)
    engine.step()
    engine.submit(ask([1], 3000, project="guest"))
    for _ in range(300):
        engine.step()
    # The guest takes one row of a step; the flood has 4 or so for its 63 seats, who take turns.
    running = [s for s in engine.scheduler.sequences if s.pages and s.request.project == "flood"]
    assert len(running) == 63
    assert max(engine.steps - s.moved for s in running) <= 18


def test_a_project_alone_has_the_whole_step():
    engine = house()
    flood(engine, 100, prompt=200, tokens=5)
    assert sum(chunk.length for chunk in engine.step()) == 512


# Classes.


def test_batch_work_hardly_delays_interactive_work():
    alone = visits(house())
    engine = house()
    flood(engine, 200, priority="batch", project="guest")
    for _ in range(40):
        engine.step()
    assert engine.scheduler.running == 64
    # Even of the same project; and a seat is made for what is interactive at once.
    assert max(visits(engine)) <= STRETCH * alone[0] + 1e-9
    assert engine.scheduler.preemptions >= 1


def test_batch_work_goes_on_beside_interactive_work_and_fills_an_empty_house():
    engine = house()
    flood(engine, 8, priority="batch", project="b")
    for _ in range(5):
        engine.step()
    engine.submit(ask([1], 200, project="a"))
    for _ in range(100):
        engine.step()
    assert sum(row.get("b", 0) for row in engine.rows[-100:]) > 300
    engine.run()
    assert all(answer.finished for answer in engine.answers.values())


def test_batch_work_is_not_admitted_while_something_interactive_waits():
    engine = house(max_num_seqs=2)
    for index in range(4):
        engine.submit(ask([index] * 5, 10, project="b", priority="batch", name=f"batch{index}"))
    for index in range(6):
        engine.submit(ask([index] * 5, 10, project="a", name=f"interactive{index}"))
    engine.run()
    order = sorted(engine.answers, key=lambda name: engine.answers[name].times[0])
    assert [name[:5] for name in order] == ["inter"] * 6 + ["batch"] * 4
