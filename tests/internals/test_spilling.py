"""Plans whose reads lie on disk: the same bits, bounded memory, and nothing left, however they end."""

from __future__ import annotations

import gc
import hashlib
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from tests.internals.plans import MAX_MODEL_LEN, Machine
from tests.internals.valid_plans import CLEAN, GENERATED, PLANS, SHORT, lens, plan
from transom.errors import InvalidRequest, PlanFailed
from transom.internals import results, room
from transom.internals.results import save
from transom.internals.room import Room
from transom.internals.values import Value
from transom.services.planning import sizes

LONG = {"token_ids": [9] * MAX_MODEL_LEN}


@pytest.fixture(scope="module")
def machine(tiny_root, tmp_path_factory) -> Machine:
    return Machine(tiny_root("llama"), tmp_path_factory.mktemp("spool"))


@pytest.fixture
def spilling(monkeypatch):
    """As if a number were a lot."""
    monkeypatch.setattr(sizes, "SPILLS_ABOVE", 0)
    for module in (sizes, room):
        monkeypatch.setattr(module, "SPILLED_FROM", 4)


@pytest.fixture
def rooms(monkeypatch):
    """Every room that was opened."""
    seen = []
    opened = Room.open

    def noted(own):
        seen.append(own)
        opened(own)

    monkeypatch.setattr(Room, "open", noted)
    return seen


def on_disk(machine) -> int:
    """Bytes of this process's maps of files of the spool, which have no names."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if str(machine.spool) in line:
            start, end = line.split()[0].split("-")
            total += int(end, 16) - int(start, 16)
    return total


@contextmanager
def files_of_at_most(nbytes: int) -> Iterator[None]:
    """A disk that is full, as a process without more rights can have it: no file may grow beyond so much."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_gives_the_bits_that_it_gives_in_memory(machine, request, rooms, name):
    expected = machine.run(PLANS[name])
    request.getfixturevalue("spilling")
    assert machine.prepare(PLANS[name]).sizes.spilled > 0
    found = machine.run(PLANS[name])
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert values.tobytes() == found[key].tobytes(), key
    assert rooms[-1]._used > 0


def test_what_is_taken_on_disk_is_what_was_asked_for(machine, spilling, rooms):
    read = {
        "x": {"at": "resid_post.*"},
        "y": lens("resid_post.*", "all", topk=9),
        "z": lens("embeddings", "all", vocabulary=True),
    }
    content = plan({"a": {"input": LONG, "read": read}}, "a.x", "a.y", "a.z")
    asked = machine.prepare(content).sizes
    machine.run(content)
    assert rooms[-1]._used == len(rooms[-1]._file) == asked.spilled
    # What is not on disk is what is in memory.
    assert asked.kept == 0


def test_rows_that_never_came_are_left_out(machine, spilling):
    first = int(
        machine.run(plan({"a": {"input": SHORT, "generate": {"max_tokens": 1}}}, "a.tokens"))["a.tokens"][0]
    )
    generate = {"max_tokens": 40, "stop_token_ids": [first]}
    read = {
        "x": {"at": "resid_post.*", "pos": GENERATED},
        "y": lens("resid_post.*", GENERATED, vocabulary=True),
    }
    found = machine.run(plan({"a": {"input": SHORT, "generate": generate, "read": read}}, "a.x", "a.y"))
    assert (found["a.x"].shape, found["a.y"].shape) == ((3, 0, 64), (3, 0, 384))


def test_a_small_plan_touches_no_disk(machine, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", None)
    assert (
        machine.prepare(plan({"a": {"input": CLEAN, "read": {"x": {"at": "q.1"}}}}, "a.x")).sizes.spilled == 0
    )
    assert machine.run(plan({"a": {"input": CLEAN, "read": {"x": {"at": "q.1"}}}}, "a.x"))["a.x"].size


BIG = plan({"a": {"input": LONG, "read": {"x": {"at": "mlp_act.*"}}}}, "a.x")


@pytest.mark.parametrize("most", [0, 100_000])
def test_a_disk_that_is_full_fails_the_plan_alone(machine, spilling, most):
    program = machine.program(BIG)
    other = machine.program(
        plan({"b": {"input": CLEAN, "read": {"x": {"at": "resid_post.1", "unit": [0]}}}}, "b.x")
    )
    with files_of_at_most(most or 4096):
        machine.engine.submit_program(program)
        machine.engine.submit_program(other)
        ends = machine.finish(program, other)
    failed = ends[program.trace_id]
    assert failed.is_full
    assert "no room on disk" in failed.error
    assert ends[other.trace_id].error is None
    machine.values(other, ends[other.trace_id])
    assert list(machine.spool.iterdir()) == []
    # And with room again, it is answered.
    assert machine.run(BIG)["a.x"].shape == (3, MAX_MODEL_LEN, 128)


def test_a_disk_that_fills_while_the_result_is_written_fails_the_plan_alone(machine):
    program = machine.program(BIG)
    assert program.spilled == 0
    with files_of_at_most(100_000):
        machine.engine.submit_program(program)
        failed = machine.finish(program)[program.trace_id]
    assert failed.is_full
    assert "could not be written" in failed.error
    assert list(machine.spool.iterdir()) == []
    assert machine.engine.idle
    assert not machine.engine.is_busy_elsewhere


@pytest.mark.parametrize("steps", [0, 1, 2, 50])
def test_an_abort_gives_the_disk_back(machine, spilling, steps):
    read = {f"r{index}": {"at": "mlp_act.*"} for index in range(8)}
    runs = {f"a{index}": {"input": LONG, "read": read} for index in range(4)}
    program = machine.program(plan(runs, *(f"a{index}.r0" for index in range(4))))
    machine.engine.submit_program(program)
    for _ in range(steps):
        if not machine.engine.idle:
            machine.engine.step()
    machine.engine.abort(program.trace_id)
    while not machine.engine.idle or machine.engine.is_busy_elsewhere:
        assert machine.news() == []
    gc.collect()
    assert on_disk(machine) == 0
    assert list(machine.spool.iterdir()) == []


def test_the_room_is_on_disk_while_it_is_used_and_has_no_name(machine, spilling):
    program = machine.program(BIG)
    machine.engine.submit_program(program)
    while not machine.engine._by_sequence:
        machine.engine.step()
    assert on_disk(machine) >= program.spilled
    assert list(machine.spool.iterdir()) == []
    machine.values(program, machine.finish(program)[program.trace_id])
    gc.collect()
    assert on_disk(machine) == 0


def test_a_plan_beyond_either_limit_is_refused_with_both_numbers(machine, monkeypatch):
    content = plan({"a": {"input": LONG, "read": {"x": {"at": "mlp_act.*"}}}}, "a.x")
    taken = 4 * 3 * MAX_MODEL_LEN * 128
    monkeypatch.setattr(sizes, "MAX_BYTES", taken - 1)
    with pytest.raises(InvalidRequest, match=rf"{taken} bytes in memory; {taken - 1} ") as refused:
        machine.prepare(content)
    assert (refused.value.param, refused.value.reason) == ("runs", "plan_too_large")
    # On disk it takes no memory.
    monkeypatch.setattr(sizes, "SPILLS_ABOVE", taken - 1)
    monkeypatch.setattr(sizes, "SPILLED_FROM", taken)
    assert machine.prepare(content).sizes.spilled == taken
    monkeypatch.setattr(sizes, "MAX_SPILLED", taken - 1)
    with pytest.raises(InvalidRequest, match=rf"{taken} bytes on disk; {taken - 1} ") as refused:
        machine.prepare(content)
    assert (refused.value.param, refused.value.reason) == ("runs", "plan_too_large")


VALUES = {
    "plain": Value(np.arange(24, dtype=np.float32).reshape(2, 3, 4), ("layer", "pos", "unit")),
    "cut": Value(np.arange(600, dtype=np.float32).reshape(3, 10, 20)[:, :7], ("layer", "pos", "unit")),
    "turned": Value(np.arange(60, dtype=np.int32).reshape(3, 20).T, ("pos", "rank")),
    "every other": Value(np.arange(99, dtype=np.float32)[::2], ("unit",)),
    "none": Value(np.zeros((0, 5), np.float32), ("pos", "unit")),
    "number": Value(np.array(7, np.float32), ()),
}


@pytest.mark.parametrize("block", [16, 64, 1 << 20])
@pytest.mark.parametrize("part", [0, 1, 100, 1 << 20])
def test_the_file_is_what_safetensors_reads(tmp_path, monkeypatch, block, part):
    monkeypatch.setattr(results, "_BLOCK", block)
    file = tmp_path / "r.safetensors"
    tensors, parts = save(file, VALUES, "rec_1", part)
    assert list(tmp_path.iterdir()) == [file]
    with safe_open(file, "numpy") as opened:
        assert set(opened.keys()) == set(VALUES)
        assert opened.metadata()["record"] == "rec_1"
        assert opened.metadata()["axes.cut"] == "layer,pos,unit"
        for info in tensors:
            array = opened.get_tensor(info.name)
            np.testing.assert_array_equal(array, VALUES[info.name].array)
            assert (array.dtype.name, array.shape) == (info.dtype, info.shape)
            assert hashlib.sha256(array.tobytes()).hexdigest() == info.sha256
    content = file.read_bytes()
    assert int.from_bytes(content[:8], "little") % 8 == 0
    cut = [content[start : start + part] for start in range(0, len(content), part or 1)] if part else []
    assert [(each.bytes, each.sha256) for each in parts] == [
        (len(piece), hashlib.sha256(piece).hexdigest()) for piece in cut
    ]


def test_a_file_that_nobody_waits_for_is_not_finished(tmp_path):
    answers = iter([True, True, False])
    with pytest.raises(PlanFailed):
        save(tmp_path / "r.safetensors", VALUES, "rec_1", is_wanted=lambda: next(answers))
    assert list(tmp_path.iterdir()) == []


def test_room_that_was_not_asked_for_is_not_given(tmp_path):
    own = Room(tmp_path, 1 << 20)
    own.open()
    assert own.zeros((1 << 18,)).sum() == 0
    with pytest.raises(RuntimeError, match="more is read"):
        own.zeros((1 << 18,))
    # Little things are not looked for on disk.
    assert own.zeros((7, 3)).shape == (7, 3)
