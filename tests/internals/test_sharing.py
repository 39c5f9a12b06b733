"""Runs that begin in the middle of another have the bits of runs that begin at the beginning."""

from __future__ import annotations

from queue import SimpleQueue

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.engine.drive import ask, load_tiny
from transom.engine.messages import Written
from transom.engine.tracing import TracingEngine
from transom.schema.beginnings import find_beginnings
from transom.schema.changes import SiteSpec, WriteSpec
from transom.schema.generation import SamplingParams
from transom.schema.program import Program, ReadSpec, RunSpec, Unembed

CLEAN, CORRUPT = tuple(range(10, 31)), (*range(10, 14), 99, *range(15, 31))
STILL = SamplingParams(seed=0, max_tokens=0, temperature=0)
ANSWER = ReadSpec(
    name="out",
    sites=(SiteSpec(point="final_norm", positions=(len(CLEAN) - 1,)),),
    reduce="unembed",
    unembed=Unembed(targets=(3, 4)),
)


def all_of(layer):
    return SiteSpec(point="resid_pre", layer=layer, positions=tuple(range(len(CLEAN))))


def cell(layer, position, point="resid_post"):
    source = SiteSpec(point=point, layer=layer, positions=(position,))
    write = WriteSpec(site=source, op="set", value=f"clean.{point}_{layer}_{position}")
    return RunSpec(
        name=f"c_{point}_{layer}_{position}",
        token_ids=CORRUPT,
        sampling=STILL,
        reads=(ANSWER,),
        writes=(write,),
    )


def sweep(cells, file):
    """Patch the corrupt prompt's run from the clean one's, at each cell."""
    sources = tuple(
        ReadSpec(name=f"{c.writes[0].value.partition('.')[2]}", sites=(c.writes[0].site,)) for c in cells
    )
    runs = (
        RunSpec(name="clean", token_ids=CLEAN, sampling=STILL, reads=(ANSWER, *sources)),
        RunSpec(name="corrupt", token_ids=CORRUPT, sampling=STILL, reads=(ANSWER,)),
        *cells,
    )
    return Program(
        trace_id="t", project="p", runs=runs, returns=tuple(f"{run.name}.out" for run in runs), file=str(file)
    )


def carry_out(loaded, program, *, restarts, beside=()):
    inbox = SimpleQueue()
    engine = TracingEngine(
        loaded.engine, loaded.lens, loaded.places.shapes, inbox, differentiator=None, restarts=restarts
    )
    engine.submit_program(program)
    for request in beside:
        engine.submit(request)
    tokens = {}
    while not engine.idle:
        outputs, ends = engine.step()
        assert not ends, ends
        for output in outputs:
            tokens.setdefault(output.sequence_id, []).extend(output.tokens)
    message = inbox.get(timeout=10)
    assert isinstance(message, Written)
    assert message.traced.error is None
    return load_file(program.file), tokens


CELLS = [cell(layer, position) for layer in range(3) for position in (0, 4, 15, 16, 20)]
CELLS += [cell(2, 4, "z"), cell(1, 17, "mlp_out"), cell(2, 20, "attn_in")]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_a_sweep_gives_the_bits_of_whole_runs(family, dtype, tiny_root, tmp_path):
    whole = load_tiny(tiny_root(family), dtype=dtype)
    small = load_tiny(tiny_root(family), dtype=dtype, max_num_batched_tokens=11, cache_bytes=1 << 19)
    assert whole.places.is_whole == (family != "gemma3")
    expected, _ = carry_out(whole, sweep(CELLS, tmp_path / "whole"), restarts=False)
    beside = [ask(f"n{i}", range(5 + i, 40 + i), max_tokens=6, temperature=0) for i in range(3)]
    alone = carry_out(whole, sweep(CELLS[:1], tmp_path / "alone"), restarts=True, beside=beside)[1]
    for loaded in (whole, small):
        found, tokens = carry_out(loaded, sweep(CELLS, tmp_path / "shared"), restarts=True, beside=beside)
        assert tokens == alone
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert len({values.tobytes() for values in expected.values()}) > 5


def begins(run, *others):
    found = find_beginnings((run, *others), width=64, cached=192).of.get(run.name)
    return found and (found.base, found.layer, found.position)


def test_where_a_run_can_begin():
    plain = RunSpec(name="corrupt", token_ids=CORRUPT, sampling=STILL)
    assert begins(cell(2, 7), plain) == ("corrupt", 2, 7)
    # Nothing has the same prompt unchanged; or nothing is below.
    assert begins(cell(2, 7)) is None
    assert begins(cell(0, 7), plain) is None
    early = ReadSpec(name="early", sites=(SiteSpec(point="resid_post", layer=1, positions=(3, 9)),))
    run = cell(2, 7)
    reading = RunSpec(name="r", token_ids=CORRUPT, sampling=STILL, reads=(ANSWER, early), writes=run.writes)
    assert begins(reading, plain) == ("corrupt", 1, 3)
    talking = SamplingParams(seed=0, max_tokens=4)
    assert begins(RunSpec(name="g", token_ids=CORRUPT, sampling=talking, writes=run.writes), plain) is None
    embedded = WriteSpec(site=SiteSpec(point="embeddings", positions=(9,)), op="zero")
    assert (
        begins(RunSpec(name="e", token_ids=CORRUPT, sampling=STILL, writes=(embedded, *run.writes)), plain)
        is None
    )
