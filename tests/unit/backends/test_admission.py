"""Room for so many sequences and no more, and a truthful word on when there will be some."""

from __future__ import annotations

import pytest

from transom.backends.admission import UNMEASURED_SECONDS, WaitingRoom
from transom.errors import EngineBusy


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def room(clock):
    """Two run, eight may wait: ten in all, six of one project."""
    return WaitingRoom("m", running=2, waiting=8, clock=clock)


def refused(room, project, sequences) -> EngineBusy:
    with pytest.raises(EngineBusy) as caught:
        room.admit(project, sequences)
    return caught.value


def test_what_fits_exactly_is_admitted_and_one_more_is_not(room):
    room.admit("a", 6)
    room.admit("b", 4)
    refused(room, "b", 1)
    refused(room, "c", 1)


def test_a_request_is_admitted_whole_or_not_at_all(room):
    room.admit("a", 6)
    room.admit("b", 1)
    refused(room, "c", 4)
    room.admit("c", 3)


def test_a_refusal_takes_nothing(room):
    for _ in range(5):
        refused(room, "a", 7)
    room.admit("a", 6)


def test_a_project_fills_half_of_the_queue_and_leaves_the_rest_to_others(room):
    room.admit("a", 6)
    error = refused(room, "a", 1)
    assert "project a has 6 sequences here, its share is 6" in error.message
    room.admit("b", 4)
    error = refused(room, "b", 1)
    assert "10 sequences run or wait, of at most 10" in error.message
    assert room.refusals == {"project": 1, "queue": 1}


def test_the_default_half_has_room_for_the_largest_request():
    from transom.config import Settings
    from transom.services.answering.ask import MAX_SEQUENCES

    settings = Settings()
    room = WaitingRoom("m", running=settings.max_num_seqs, waiting=settings.max_queue)
    assert settings.max_queue // 2 >= MAX_SEQUENCES
    room.admit("a", MAX_SEQUENCES)
    room.admit("b", MAX_SEQUENCES)


def test_room_is_given_back_one_by_one_and_the_rest_at_the_end(room):
    admission = room.admit("a", 6)
    for _ in range(2):
        admission.leave()
    room.admit("a", 2)
    refused(room, "a", 1)
    admission.close()
    room.admit("a", 4)
    refused(room, "a", 1)


def test_room_is_given_back_once_however_often_it_is_said(room):
    with room.admit("a", 2) as admission:
        for _ in range(5):
            admission.leave()
        admission.close()
    admission.close()
    admission.leave()
    room.admit("a", 6)
    room.admit("b", 4)
    refused(room, "c", 1)


def test_who_is_refused_before_anything_finished_is_told_the_default(room):
    room.admit("a", 6)
    assert refused(room, "a", 1).retry_after == UNMEASURED_SECONDS


def test_retry_after_is_how_long_it_takes_at_the_pace_of_late(room, clock):
    admissions = [room.admit("a", 1) for _ in range(6)] + [room.admit("b", 1) for _ in range(4)]
    for admission in admissions[:2] + admissions[-2:]:
        clock.now += 5
        admission.leave()
    # Four in twenty seconds. There is room for four.
    room.admit("b", 4)
    assert refused(room, "c", 1).retry_after == 5
    assert refused(room, "c", 3).retry_after == 15
    assert "Ask again in 15 s." in refused(room, "c", 3).message


def test_a_projects_share_empties_at_the_projects_own_pace(room, clock):
    slow, quick = room.admit("slow", 6), room.admit("quick", 4)
    clock.now += 10
    slow.leave()
    for _ in range(3):
        quick.leave()
    room.admit("slow", 1)
    assert refused(room, "slow", 1).retry_after == 10
    room.admit("other", 3)
    assert refused(room, "other", 1).retry_after == 3  # four finished in ten seconds


def test_who_lacks_both_kinds_of_room_is_told_the_longer_wait(room, clock):
    room.admit("a", 5).leave()
    room.admit("b", 6)
    clock.now += 1
    # One in a second. Two of a's must finish for its share, and four of anybody's for the whole.
    assert refused(room, "a", 4).retry_after == 4


def test_what_was_broken_off_is_no_measure_of_the_pace(room, clock):
    clock.now += 3
    with room.admit("a", 6):
        clock.now += 1
    room.admit("a", 6)
    assert refused(room, "a", 1).retry_after == UNMEASURED_SECONDS


def test_time_without_work_is_not_counted(room, clock):
    admission = room.admit("a", 1)
    clock.now += 2
    admission.leave()
    clock.now += 10_000
    room.admit("a", 6)
    room.admit("b", 4)
    clock.now += 2
    # One in four seconds of work.
    assert refused(room, "c", 1).retry_after == 4


def test_the_pace_is_that_of_the_newest_sequences(clock):
    room = WaitingRoom("m", running=1000, waiting=2, clock=clock)
    admission = room.admit("a", 1000)
    for _ in range(100):
        clock.now += 10
        admission.leave()
    for _ in range(64):
        clock.now += 0.5
        admission.leave()
    room.admit("a", 165)
    assert refused(room, "a", 20).retry_after == 10


def test_retry_after_is_a_second_at_least(room, clock):
    admission = room.admit("a", 6)
    for _ in range(5):
        admission.leave()
    room.admit("a", 5)
    assert refused(room, "a", 1).retry_after == 1


def test_a_project_that_left_leaves_nothing_behind(room):
    for number in range(100):
        room.admit(f"p{number}", 3).close()
    assert not room._inside
    assert not room._paces
