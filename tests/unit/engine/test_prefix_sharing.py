"""What one sequence computed, another of the same project does not compute again: keys, values and scores."""

import pytest
from scheduler_driver import StandInEngine, ask, generated_alone, scores_alone

CONTEXT = list(range(100))


def rows_of(chunks):
    return [chunk.length for chunk in chunks]


def roomy(**options):
    return StandInEngine(**{"pages": 200, "max_num_batched_tokens": 512} | options)


def check_answers(engine):
    for answer in engine.answers.values():
        assert answer.tokens == generated_alone(answer.request)
        if answer.request.sampling.prompt_logprobs is not None:
            assert answer.scores == scores_alone(answer.request)


def test_endings_that_arrive_together_share_their_context_in_the_same_step():
    engine = roomy()
    for ending in range(4):
        engine.submit(ask([*CONTEXT, 7, ending]))
    assert rows_of(engine.step()) == [102, 6, 6, 6]
    assert (engine.scheduler.prefix_queries, engine.scheduler.prefix_hits) == (4 * 102, 3 * 96)
    engine.run()
    check_answers(engine)


def test_scored_endings_share_context_and_scores_in_the_same_step():
    engine = roomy()
    for ending in range(4):
        engine.submit(ask([*CONTEXT, 7, ending], max_tokens=1, prompt_logprobs=1))
    # Each starts one position early: that one's logits score the first token that is its own.
    assert rows_of(engine.step()) == [102, 7, 7, 7]
    assert engine.scheduler.idle
    check_answers(engine)


def test_what_is_not_of_the_same_project_is_computed_again():
    engine = roomy()
    for project in "ab":
        engine.submit(ask(CONTEXT, project=project))
    engine.run()
    assert engine.scheduler.prefix_hits == 0
    assert sum(row.get("b", 0) for row in engine.rows) >= 100


def test_both_classes_of_a_project_share():
    engine = roomy()
    engine.submit(ask(CONTEXT))
    engine.submit(ask(CONTEXT, priority="batch"))
    engine.run()
    assert engine.scheduler.prefix_hits == 96


def test_the_next_turn_of_a_chat_finds_what_was_generated():
    engine = roomy()
    first = ask(CONTEXT, max_tokens=40)
    engine.submit(first)
    engine.run()
    history = [*CONTEXT, *generated_alone(first)]
    engine.submit(ask([*history, 1, 2, 3]))
    # Of 140 tokens 139 were computed, which are 8 full pages.
    assert rows_of(engine.step()) == [143 - 128]
    engine.run()
    check_answers(engine)


@pytest.mark.parametrize(("length", "computed"), [(95, 15), (96, 16), (97, 1), (100, 4)])
def test_a_hit_leaves_at_least_the_last_token_to_compute(length, computed):
    engine = roomy()
    engine.submit(ask(CONTEXT))
    engine.run()
    engine.submit(ask(CONTEXT[:length]))
    assert rows_of(engine.step()) == [computed]


@pytest.mark.parametrize(("first", "second", "computed"), [(2, 2, 5), (5, 2, 5), (0, 0, 5), (1, 2, 100)])
def test_scores_are_shared_where_they_list_enough(first, second, computed):
    engine = roomy()
    for top in (first, second):
        engine.submit(ask(CONTEXT, prompt_logprobs=top))
        chunks = engine.step()
        engine.run()
    assert rows_of(chunks) == [computed]
    check_answers(engine)


def test_pages_without_scores_serve_those_who_want_none():
    engine = roomy()
    computed = []
    for top in (None, 0, None, 0):
        engine.submit(ask(CONTEXT, prompt_logprobs=top))
        computed += rows_of(engine.step())
        engine.run()
    # The second scores, and leaves its scores on the pages of the first.
    assert computed == [100, 100, 4, 5]
    check_answers(engine)


def test_a_scorer_with_more_most_likely_tokens_raises_what_a_page_offers_in_the_same_step():
    engine = roomy()
    for top in (1, 3, 3, 1):
        engine.submit(ask(CONTEXT, prompt_logprobs=top))
    assert rows_of(engine.step()) == [100, 100, 5, 5]
    engine.run()
    check_answers(engine)


def test_long_scored_prompts_share_while_both_are_being_computed():
    engine = roomy(max_num_batched_tokens=48)
    for ending in range(3):
        engine.submit(ask([*CONTEXT, ending], prompt_logprobs=2))
    engine.run()
    check_answers(engine)
    assert sum(row["a"] for row in engine.rows) < 101 + 2 * 10 + 3 * 4


def test_those_admitted_by_right_share_what_the_first_of_them_is_about_to_compute():
    engine = roomy(max_num_seqs=4)
    for index in range(4):
        engine.submit(ask([60 + index] * 3, max_tokens=50, project="flood"))
    engine.step()
    # Short enough for both to be in one short step.
    engine.submit(ask(CONTEXT[:36], prompt_logprobs=1))
    engine.submit(ask(CONTEXT[:36], prompt_logprobs=1))
    chunks = engine.step()
    assert engine.scheduler.preemptions == 2
    assert [chunk.length for chunk in chunks if chunk.sequence.request.project == "a"] == [36, 5]
    engine.run()
    check_answers(engine)


def test_a_prompt_that_stopped_inside_a_page_goes_on_with_a_page_of_its_own():
    engine = roomy(max_num_batched_tokens=40)
    slow = engine.submit(ask(CONTEXT, priority="batch", prompt_logprobs=1))
    engine.step()
    fast = engine.submit(ask(CONTEXT, prompt_logprobs=1))
    while not engine.answers[fast].finished:
        engine.step()
    assert not engine.answers[slow].finished
    engine.run()
    check_answers(engine)


def test_a_prompt_that_stopped_between_pages_goes_on_behind_another_that_overtook_it():
    engine = roomy(max_num_batched_tokens=32)
    engine.submit(ask(CONTEXT, priority="batch", prompt_logprobs=1))
    engine.step()
    fast = engine.submit(ask(CONTEXT, prompt_logprobs=1))
    while not engine.answers[fast].finished:
        engine.step()
    engine.run()
    check_answers(engine)
    # The first 31 tokens are found by the one that overtakes, and 63 more by the one that was overtaken.
    assert engine.scheduler.prefix_hits == 31 + 63


def test_two_that_generate_the_same_side_by_side_keep_one_page_for_others():
    engine = roomy()
    for _ in range(2):
        engine.submit(ask(CONTEXT, max_tokens=40))
    engine.run()
    check_answers(engine)
    # Eight full pages of 139 positions; what the second computed beside the first is free again.
    assert engine.scheduler.pages_cached == 8


def test_nothing_is_shared_without_prefix_caching():
    engine = roomy(prefix_caching=False)
    for _ in range(2):
        engine.submit(ask(CONTEXT, prompt_logprobs=1))
    assert rows_of(engine.step()) == [100, 100]
    engine.run()
    check_answers(engine)
    assert (engine.scheduler.prefix_queries, engine.scheduler.prefix_hits) == (0, 0)
    assert (engine.scheduler.pages_cached, engine.scheduler.pages_used) == (0, 0)


def test_a_shared_context_is_counted_once_when_room_is_short():
    # Ten pages: the context and its first ending take seven, each further ending one.
    engine = StandInEngine(pages=11, max_num_batched_tokens=512)
    for ending in range(3):
        engine.submit(ask([*CONTEXT[:96], ending], max_tokens=4))
    assert len(engine.step()) == 3
    engine.run()
    check_answers(engine)


def test_idle_pages_are_evicted_before_anybody_is_preempted():
    engine = StandInEngine(pages=13, max_num_batched_tokens=512)
    engine.submit(ask(CONTEXT, max_tokens=1))
    engine.run()
    assert engine.scheduler.pages_cached == 6
    engine.submit(ask([9] * 100, max_tokens=60))
    engine.run()
    assert engine.scheduler.preemptions == 0
    check_answers(engine)


def test_a_preempted_sequence_finds_its_own_pages():
    engine = StandInEngine(pages=14, max_num_batched_tokens=512)
    for salt in range(2):
        engine.submit(ask([salt] * 60, max_tokens=80, prompt_logprobs=1))
    engine.run()
    assert engine.scheduler.preemptions > 0
    assert engine.scheduler.prefix_hits > 0
    check_answers(engine)


def test_who_shared_pages_of_a_broken_step_waits_again_and_nothing_of_it_is_found():
    engine = roomy()
    engine.submit(ask(CONTEXT[:40], max_tokens=20))
    engine.step()
    engine.submit(ask(CONTEXT, prompt_logprobs=1))
    engine.submit(ask(CONTEXT, prompt_logprobs=1))
    before = engine.scheduler.pages_used
    assert rows_of(engine.step(breaks="forward")) == [100, 5, 1]
    assert (engine.scheduler.running, engine.scheduler.waiting) == (2, 1)
    # The second computed nothing, and keeps its place and its pages.
    assert engine.scheduler.pages_used == before + 7
    assert rows_of(engine.step()) == [100, 5, 1]
    engine.run()
    check_answers(engine)


def test_scores_recorded_before_a_step_broke_are_not_recorded_twice():
    engine = roomy(max_num_batched_tokens=40)
    engine.submit(ask(CONTEXT, prompt_logprobs=1))
    for breaks in ("later", None, "later", None, "later"):
        engine.step(breaks=breaks)
    engine.run()
    check_answers(engine)


def test_what_was_shared_before_a_broken_step_is_kept():
    engine = roomy()
    engine.submit(ask(CONTEXT))
    engine.step()
    engine.submit(ask(CONTEXT))
    engine.step()
    engine.step(breaks="forward")
    assert engine.scheduler.running == 2
    assert rows_of(engine.step()) == [1, 1]
    engine.run()
    check_answers(engine)


def test_a_step_that_nobody_answered_for_leaves_nothing_to_be_found():
    engine = roomy(max_num_batched_tokens=34)
    engine.submit(ask(CONTEXT, priority="batch"))
    engine.scheduler.schedule()
    engine.submit(ask(CONTEXT))
    assert rows_of(engine.step()) == [34]
    engine.run()
    check_answers(engine)


def test_a_page_that_a_broken_step_should_have_filled_is_not_found():
    engine = roomy()
    first = engine.submit(ask(CONTEXT))
    engine.step(breaks="forward")
    engine.abort(first)
    assert engine.scheduler.pages_cached == 0
    engine.submit(ask(CONTEXT))
    assert rows_of(engine.step()) == [100]


def test_promises_of_a_broken_step_are_forgotten_on_pages_that_stay():
    engine = roomy()
    engine.submit(ask(CONTEXT))
    engine.run()
    scorer = engine.submit(ask(CONTEXT, prompt_logprobs=1))
    engine.step(breaks="forward")
    engine.abort(scorer)
    engine.submit(ask(CONTEXT, prompt_logprobs=1))
    assert rows_of(engine.step()) == [100]
    engine.run()
    check_answers(engine)


def test_a_sharer_that_leaves_takes_nothing_from_the_others():
    engine = roomy()
    names = [engine.submit(ask([*CONTEXT, i], max_tokens=30)) for i in range(3)]
    engine.step()
    engine.abort(names[0])
    engine.step()
    engine.abort(names[2])
    engine.run()
    check_answers(engine)
    assert engine.scheduler.pages_used == 0


def test_ending_everybody_in_the_middle_of_a_step_leaves_no_page_behind():
    """A step whose failure nobody reported before the sequences were removed."""
    engine = roomy()
    for _ in range(3):
        engine.submit(ask(CONTEXT, prompt_logprobs=1))
    engine.scheduler.schedule()
    for sequence in engine.scheduler.sequences:
        engine.abort(sequence.sequence_id)
    assert (engine.scheduler.pages_used, engine.scheduler.pages_cached) == (0, 0)
    engine.submit(ask(CONTEXT, prompt_logprobs=1))
    engine.run()
    check_answers(engine)


def test_a_resumed_sequence_does_not_score_and_finds_its_prefix():
    engine = roomy()
    request = ask(CONTEXT, max_tokens=30, prompt_logprobs=1)
    engine.submit(request)
    engine.run()
    again = ask(CONTEXT, max_tokens=30, prompt_logprobs=1)
    engine.submit(again, tuple(generated_alone(again)[:20]))
    assert rows_of(engine.step()) == [120 - 112]
    engine.run()
    answer = engine.answers[again.sequence_id]
    assert answer.tokens == generated_alone(again)
    assert answer.scores is None
