"""From prompts and settings to rows, tables and the page of results."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest

from benchmarks.load import rows as results
from benchmarks.load.command import pairs, parse
from benchmarks.load.compare import order
from benchmarks.load.machine import cpu_name, instruction_sets
from benchmarks.load.page import page
from benchmarks.load.prompts import FIRST_ID, Prompts
from benchmarks.load.rows import Row
from benchmarks.load.scenarios import SCENARIOS, scaled, warming
from benchmarks.load.table import lines
from benchmarks.load.words import SHOWN, name_setting, show
from tests.documents import ROOT, blocks

README = ROOT / "benchmarks" / "README.md"


def documented(program: str) -> list[list[str]]:
    """Arguments of each command in the README that runs a program."""
    text = "\n".join(block.text for block in blocks(README))
    commands = [shlex.split(line) for line in text.splitlines() if f"python {program}" in line]
    return [words[words.index(program) + 1 :] for words in commands]


CPU_INFO = """\
processor	: 0
cpu family	: 25
model		: 1
model name	: AMD  EPYC
flags		: fpu avx2 avx512f avx512_bf16
"""

OURS = Row(
    run="20260203T040506Z",
    date="2026-02-03T04:05:06+00:00",
    commit="c" * 40,
    dirty=False,
    machine={"cpu": "AMD EPYC (family 25, model 1)", "cores": 2, "memory_gib": 24, "isa": ["avx2"]},
    server={"label": "ours", "version": "", "dtype": "float32", "model": "m", "reference": True},
    scenario="decode",
    settings=SCENARIOS["decode"].settings[0] | {"seed": 1, "form": "ids"},
    rounds=[{"output_tokens_per_s": value, "itl_p50_ms": 10.0} for value in (30.0, 50.0, 400.0)],
)
THEIRS = replace(
    OURS,
    server={"label": "vllm", "version": "0.32.0", "dtype": "float32", "model": "m", "reference": False},
    rounds=[{"output_tokens_per_s": 25.0, "itl_p50_ms": 20.0}],
)


class TestPrompts:
    """Prompts are new in each round, and the same for everybody."""

    def test_the_same_seed_draws_the_same_prompt(self):
        assert Prompts(1).draw(64, 0, "decode", 3) == Prompts(1).draw(64, 0, "decode", 3)

    @pytest.mark.parametrize("other", [(1, "decode", 3), (0, "prefill", 3), (0, "decode", 4)])
    def test_another_purpose_draws_another_prompt(self, other):
        assert Prompts(1).draw(64, 0, "decode", 3) != Prompts(1).draw(64, *other)

    def test_ids_are_in_the_vocabulary(self):
        ids = Prompts(1, "ids", 300).draw(1000, "x")
        assert min(ids) >= FIRST_ID
        assert max(ids) < 300

    def test_texts_have_as_many_words(self):
        assert len(str(Prompts(1, "text").draw(64, "x")).split()) == 64

    @pytest.mark.parametrize("form", ["ids", "text"])
    def test_branches_share_their_context_and_no_ending(self, form):
        branches = Prompts(1, form).draw_branches(4, 200, 10, "x")
        split = [each.split() if isinstance(each, str) else each for each in branches]
        assert {len(each) for each in split} == {210}
        assert len({tuple(each[:200]) for each in split}) == 1
        assert len({tuple(each[200:]) for each in split}) == 4


class TestScenarios:
    """Settings of scenarios."""

    def test_a_scale_multiplies_requests_but_leaves_enough_to_fill_the_concurrency(self):
        doubled, tiny = scaled(SCENARIOS["scoring"], 2), scaled(SCENARIOS["scoring"], 0.01)
        assert doubled.settings[0]["requests"] == 2 * SCENARIOS["scoring"].settings[0]["requests"]
        assert tiny.settings[0]["requests"] == tiny.settings[0]["concurrency"]

    def test_concurrencies_can_be_chosen(self):
        chosen = scaled(SCENARIOS["decode"], 1, [8])
        assert {each["concurrency"] for each in chosen.settings} == {8}

    def test_warming_up_asks_for_little(self):
        (*_, last) = SCENARIOS["decode"].settings
        assert warming(last) == last | {"requests": 32, "max_tokens": 4}

    def test_rounds_go_forwards_and_backwards(self):
        assert [order("ab", number) for number in range(3)] == [["a", "b"], ["b", "a"], ["a", "b"]]

    @pytest.mark.parametrize("name", SCENARIOS)
    def test_every_scenario_has_words_and_figures(self, name):
        assert name_setting(name, SCENARIOS[name].settings[0]) != name
        assert SHOWN[name]


class TestRows:
    """What is kept."""

    def test_a_row_survives_its_line(self):
        assert replace(Row.read(OURS.line()), median={}) == OURS

    def test_a_line_has_the_median_of_every_round(self):
        assert json.loads(OURS.line())["median"] == {"output_tokens_per_s": 50.0, "itl_p50_ms": 10.0}

    def test_what_is_no_row_is_refused(self):
        with pytest.raises(ValueError, match="not a row"):
            Row.read('{"scenario": "decode"}')

    def test_rows_are_appended_and_read_in_the_order_of_their_dates(self, tmp_path):
        earlier = replace(OURS, date="2025-12-31T00:00:00+00:00")
        results.append([OURS], tmp_path)
        path = results.append([THEIRS, earlier], tmp_path)
        assert path is not None
        assert path.name == "2025-12-31-amd-epyc-family-25-model-1-2c.jsonl"
        assert [row.date for row in results.read_all(tmp_path)] == [earlier.date, OURS.date, THEIRS.date]

    def test_a_processor_is_known_by_name_family_and_model(self):
        assert cpu_name(CPU_INFO) == "AMD EPYC (family 25, model 1)"

    def test_instruction_sets_are_those_that_matter(self):
        assert instruction_sets(CPU_INFO) == ["avx2", "avx512", "bf16"]


class TestTable:
    """What a comparison prints."""

    def test_it_has_medians_and_the_ratio(self):
        text = "\n".join(lines([OURS, THEIRS]))
        assert "decode 64 + 64, 1 at once, greedy" in text
        assert [line.split()[-3:] for line in text.splitlines() if "output" in line] == [
            ["50.0", "25.0", "2.00"]
        ]

    def test_one_server_has_no_ratio(self):
        assert [line.split() for line in lines([OURS]) if "output" in line] == [
            ["output", "tokens/s", "50.0"]
        ]

    @pytest.mark.parametrize(
        ("figure", "value", "shown"),
        [
            ("itl_p50_ms", 1234.5, "1,234"),
            ("itl_p50_ms", 12.34, "12.3"),
            ("itl_p50_ms", 1.234, "1.23"),
            ("largest_difference", 2.61e-5, "2.6e-05"),
            ("same_tokens", 5.0, "5 of 20"),
            ("same_tokens", None, "-"),
        ],
    )
    def test_figures_have_the_digits_they_deserve(self, figure, value, shown):
        assert show(figure, value, 20) == shown


class TestPage:
    """`docs/reference/performance.md`."""

    def text(self, *rows: Row) -> str:
        return "\n".join(page(rows))

    def test_without_rows_it_says_so_and_how_to_get_some(self):
        assert "No results are kept yet." in self.text()
        assert "benchmarks/serve.py compare" in self.text()

    def test_a_pair_is_a_line_with_its_ratio(self):
        assert "### Transom float32 and vllm 0.32.0 float32" in self.text(OURS, THEIRS)
        assert "| output tokens/s | 50.0 | 25.0 | 2.00 | 2026-02-03, cccccccccc, 3 rounds |" in self.text(
            OURS, THEIRS
        )

    def test_a_server_measured_alone_stands_alone(self):
        assert "### Transom float32, alone" in self.text(OURS)

    def test_the_newest_run_is_shown(self):
        old = [replace(row, run="0", date="2025-01-01T00:00:00+00:00") for row in (OURS, THEIRS)]
        newest = self.text(*old, OURS, THEIRS)
        assert newest == self.text(OURS, THEIRS)

    def test_rows_of_different_runs_are_not_compared(self):
        assert "alone" in self.text(OURS, replace(THEIRS, run="another"))

    def test_each_machine_has_its_section(self):
        other = replace(OURS, machine=OURS.machine | {"cores": 64})
        assert self.text(OURS, other).count("\n## ") == 3


class TestCommand:
    """The command line of `serve.py`."""

    def test_labels_name_values(self):
        assert pairs(["a=http://x/?q=1", "b=y"]) == {"a": "http://x/?q=1", "b": "y"}

    @pytest.mark.parametrize("wrong", ["a", "=x", "c=x"])
    def test_a_pair_without_a_known_label_is_refused(self, wrong):
        with pytest.raises(SystemExit, match="is not LABEL=VALUE"):
            pairs([wrong], ["a", "b"])

    @pytest.mark.parametrize("command", documented("benchmarks/serve.py"))
    def test_a_documented_command_can_be_read(self, command):
        assert parse(command).server[0].startswith("ours=")
