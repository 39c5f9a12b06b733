"""After an engine's death everyone goes on, and whoever may have killed it goes on alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from transom.backends.roster import Roster


@dataclass(eq=False)
class Sequence:
    sequence_id: str
    deaths: int = 0


class Engine:
    """Takes what the roster sends, and remembers who was there together."""

    def __init__(self) -> None:
        self.roster = Roster(self.take)
        self.here: list[str] = []
        self.known: dict[str, Sequence] = {}

    def take(self, sequence):
        self.here.append(sequence.sequence_id)

    def up(self):
        self.here = []
        self.roster.engine_is_up()
        return self.here

    def dies(self):
        guilty = self.roster.engine_died()
        return guilty and guilty.sequence_id

    def add(self, *names):
        for name in names:
            self.known[name] = Sequence(name)
            self.roster.add(self.known[name])

    def remove(self, name):
        self.roster.remove(self.known[name])


@pytest.fixture
def engine():
    made = Engine()
    made.up()
    made.add("a", "b", "c")
    return made


@pytest.fixture
def suspicious(engine):
    """An engine that died twice with a, b and c, and is up again."""
    for _ in range(2):
        assert engine.dies() is None
        engine.up()
    return engine


def test_everyone_goes_to_an_engine_that_is_up(engine):
    assert engine.here == ["a", "b", "c"]
    assert engine.roster.engine_has_work


def test_who_comes_while_there_is_no_engine_waits_for_it():
    engine = Engine()
    engine.add("a", "b")
    assert engine.here == []
    assert len(engine.roster) == 2
    assert not engine.roster.engine_has_work
    assert engine.up() == ["a", "b"]


def test_after_one_death_everyone_goes_on_together_in_the_old_order(engine):
    assert engine.dies() is None
    engine.add("d")
    assert engine.up() == ["a", "b", "c", "d"]


def test_who_lived_through_two_deaths_runs_alone_and_first(suspicious):
    assert suspicious.here == ["a"]
    suspicious.add("d")
    assert suspicious.here == ["a"]


def test_one_suspect_follows_the_other_and_then_come_the_rest(suspicious):
    suspicious.add("d", "e")
    for name in "abc":
        assert suspicious.here[-1] == name
        suspicious.remove(name)
    assert suspicious.here == ["a", "b", "c", "d", "e"]


def test_who_is_alone_at_a_death_is_guilty_and_the_others_go_on_together(suspicious):
    suspicious.add("d")
    suspicious.remove("a")
    assert suspicious.here == ["a", "b"]
    assert suspicious.dies() == "b"
    assert suspicious.up() == ["c", "d"]
    suspicious.remove("b")
    assert suspicious.here == ["c", "d"]


def test_a_second_culprit_is_found_too(suspicious):
    suspicious.add("d")
    assert suspicious.dies() == "a"
    assert suspicious.up() == ["b", "c", "d"]
    assert suspicious.dies() is None
    assert suspicious.up() == ["b"]
    assert suspicious.dies() == "b"
    assert suspicious.up() == ["c", "d"]


def test_a_suspect_that_leaves_makes_way(suspicious):
    suspicious.remove("b")
    assert suspicious.here == ["a"]
    suspicious.remove("a")
    assert suspicious.here == ["a", "c"]


def test_a_suspect_that_leaves_while_the_engine_is_down_is_not_sent(suspicious):
    suspicious.remove("a")
    suspicious.dies()
    suspicious.remove("c")
    assert suspicious.up() == []
    suspicious.add("d")
    assert suspicious.here == ["d"]


def test_a_sequence_is_counted_only_the_deaths_that_it_was_there_for(engine):
    engine.dies()
    engine.up()
    engine.add("d")
    engine.dies()
    engine.remove("a")
    assert engine.up() == ["b"]
    engine.remove("b")
    engine.remove("c")
    assert engine.here == ["b", "c", "d"]
    assert engine.known["d"].deaths == 1


def test_only_what_the_engine_has_is_found(suspicious):
    assert suspicious.roster.find("a").sequence_id == "a"
    assert suspicious.roster.find("b") is None
    assert suspicious.roster.find("z") is None


def test_clearing_names_everyone_and_starts_nobody(suspicious):
    suspicious.add("d")
    assert [each.sequence_id for each in suspicious.roster.clear()] == ["a", "b", "c", "d"]
    assert len(suspicious.roster) == 0
    assert suspicious.here == ["a"]
    suspicious.add("e")
    assert suspicious.here == ["a", "e"]
