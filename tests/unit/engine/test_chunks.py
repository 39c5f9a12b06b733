"""What the rows of a chunk count for, and which of its positions are scored."""

from scheduler_driver import StandInEngine, ask

from transom.engine.chunks import Chunk, scored_positions
from transom.engine.sequence import Sequence


def test_service_is_prompt_rows_and_twice_the_tokens():
    engine = StandInEngine(max_num_batched_tokens=16)
    engine.submit(ask([1] * 40, 5))
    (lane,) = engine.scheduler._lanes
    engine.run()
    assert lane.counter == 40 + 2 * 5
    engine.submit(ask([1] * 40, 0))
    (lane,) = engine.scheduler._lanes
    engine.run()
    # What was found in the cache is free.
    assert lane.counter == 8


def test_scored_positions_end_before_the_last_token_of_the_prompt():
    sequence = Sequence(ask(range(10), prompt_logprobs=0))
    assert scored_positions(Chunk(sequence, 0, 4)) == range(4)
    assert scored_positions(Chunk(sequence, 4, 6)) == range(4, 9)
    assert scored_positions(Chunk(Sequence(ask(range(10))), 0, 4)) == range(0)


def test_a_prompt_of_one_token_has_its_scores_already():
    sequence = Sequence(ask([1], prompt_logprobs=2))
    assert sequence.finished_prompt_logprobs
    assert sequence.prompt_logprobs == [None]
    assert scored_positions(Chunk(sequence, 0, 1)) == range(0)
