"""Documentation is true, or the build fails."""

from __future__ import annotations

import ast
import json
import re
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import pytest
import typer

from scripts import generate, sources
from scripts.plans import GROUPS
from tests.documents import ROOT, anchors, blocks, links, pages
from transom.cli.main import app as command_line
from transom.config import Settings
from transom.records.statement import draft
from transom.schema.canonical import sha256
from transom.schema.generation import SamplingParams, SequenceResult, TokenLogprob
from transom.schema.measures import Measured, Measures
from transom.schema.openings import verify_openings
from transom.schema.plan import Plan
from transom.schema.points import POINTS
from transom.schema.program import TensorInfo
from transom.schema.record import Answer, Failure

REFERENCE = ROOT / "docs" / "reference"
RECORD_FORMAT = REFERENCE / "record-format.md"
RECORDS = ROOT / "docs" / "explanation" / "records.md"

TENSORS = (
    TensorInfo(name="r.x", dtype="float32", shape=(2, 3), axes=("position", "unit"), sha256="ab" * 32),
)


@cache
def read(page: str) -> str:
    return (REFERENCE / page).read_text(encoding="utf-8")


def test_generated_pages_are_current():
    assert [path.name for path in generate.stale()] == [], "run python -m scripts.generate"


def test_generated_pages_hold_no_path_of_this_machine():
    assert [name for name in generate.PAGES if str(ROOT) in read(name) or "/root" in read(name)] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    broken = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_in_the_index():
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link).resolve() for link in links(index)}
    assert [page for page in (ROOT / "docs").rglob("*.md") if page not in linked | {index}] == []


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_is_documented(name):
    assert f"`TRANSOM_{name.upper()}`" in read("settings.md")


def codes_in_the_source() -> set[str]:
    """Literal values of anything called `code` in a call, an assignment or a dictionary of statuses."""
    found = set()
    for path in sources.SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.keyword) and node.arg == "code"
            if named or (isinstance(node, ast.Assign) and "code" in _names(*node.targets)):
                found |= _texts(node.value)
    return found


def _names(*targets: ast.expr) -> set[str]:
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def _texts(value: ast.expr) -> set[str]:
    texts = (node.value for node in ast.walk(value) if isinstance(node, ast.Constant))
    return {text for text in texts if isinstance(text, str) and re.fullmatch(r"[a-z]+(_[a-z]+)+", text)}


@pytest.mark.parametrize("code", sorted(codes_in_the_source() - {"status_code"}))
def test_an_error_code_is_documented(code):
    assert f"`{code}`" in read("errors.md")


def test_the_codes_that_say_more_are_those_in_the_source():
    assert generate.REASONS.keys() <= codes_in_the_source()


def test_every_part_of_a_plan_is_on_its_page():
    parts = Plan.model_json_schema()["$defs"].keys() - {"Message", "TextPart"}
    named = {kind.__name__ for group in GROUPS.values() for kind in group}
    assert named == parts | {"Plan"}
    assert [name for name in POINTS if f"| `{name}" not in read("plans.md")] == []


def commands() -> list[str]:
    found = []

    def walk(name, command):
        children = getattr(command, "commands", None)
        if children is None:
            found.append(name)
        for child, each in (children or {}).items():
            walk(f"{name} {child}", each)

    walk("transom", typer.main.get_command(command_line))
    return found


@pytest.mark.parametrize("command", commands())
def test_a_command_is_documented(command):
    assert f"## {command}\n" in read("cli.md")


@pytest.fixture(scope="module")
def example():
    """Statement and openings, as the page on the format has them."""
    statement, openings = [json.loads(b.text) for b in blocks(RECORD_FORMAT) if b.language == "json"]
    return statement, openings


@pytest.fixture(scope="module")
def program():
    """What the program on that page defines."""
    (block,) = [block for block in blocks(RECORD_FORMAT) if block.language == "python"]
    scope: dict = {}
    exec(compile(block.text, block.name, "exec"), scope)
    return scope


class TestRecordFormat:
    """The page's example, checked by the page's own program and by ours."""

    def test_the_pages_program_verifies_the_pages_example(self, example, program):
        assert program["verify"](*example)

    def test_the_page_states_the_digest_of_its_example(self, example, program):
        digest = program["sha256"](program["canonical"](example[0]))
        assert f"`{digest}`" in RECORD_FORMAT.read_text(encoding="utf-8")

    def test_our_code_verifies_the_pages_example(self, example):
        assert verify_openings(*example) == []

    @pytest.mark.parametrize(
        "path",
        [
            ("request", "json"),
            ("messages", "json"),
            ("prompts", 0, "token_ids"),
            ("stop", "json"),
            ("stop_token_ids", "token_ids"),
            ("logit_bias", "json"),
            ("writes", "json"),
            ("sequences", 0, "token_ids", "token_ids"),
            ("sequences", 0, "text", "text"),
            ("sequences", 0, "text", "salt"),
            ("sequences", 0, "logprobs"),
            ("sequences", 0, "top"),
        ],
        ids=str,
    )
    def test_the_pages_program_finds_a_change(self, example, program, path):
        statement, openings = deepcopy(example)
        place = openings
        for step in path[:-1]:
            place = place[step]
        value = place[path[-1]]
        place[path[-1]] = "00" * 32 if path[-1] == "salt" else value + value[:1]
        assert not program["verify"](statement, openings)

    @pytest.mark.parametrize("tensors", [None, (), TENSORS], ids=["nothing read", "none answered", "read"])
    @pytest.mark.parametrize("failed", [False, True])
    def test_the_pages_program_verifies_a_record_of_ours(self, program, failed, tensors):
        made = draft(replace(answer(failed=failed), tensors=tensors))
        raw = made.statement(9)
        statement, openings = json.loads(raw), json.loads(made.openings)
        assert program["sha256"](program["canonical"](statement)) == sha256(raw)
        assert program["verify"](statement, openings)

    @pytest.mark.parametrize(("old", "new"), [("[2,3]", "[3,2]"), ("unit", "head"), ("ab", "ba")])
    def test_the_pages_program_finds_other_tensors(self, program, old, new):
        made = draft(replace(answer(), tensors=TENSORS))
        statement, openings = json.loads(made.statement(9)), json.loads(made.openings)
        changed = openings["tensors"]["json"].replace(old, new)
        assert changed != openings["tensors"]["json"]
        assert not program["verify"](
            statement, openings | {"tensors": openings["tensors"] | {"json": changed}}
        )
        assert not program["verify"](statement, openings | {"tensors": None})

    def test_the_pages_program_finds_other_writes(self, program):
        made = draft(answer())
        statement, openings = json.loads(made.statement(9)), json.loads(made.openings)
        changed = openings["writes"]["json"].replace("z.0", "z.1")
        assert not program["verify"](statement, openings | {"writes": openings["writes"] | {"json": changed}})
        assert not program["verify"](statement, openings | {"writes": None})

    def test_the_pages_program_finds_tensors_where_none_were_asked_for(self, example, program):
        statement, openings = example
        slipped = {"salt": "00" * 32, "json": "[]"}
        assert not program["verify"](statement, openings | {"tensors": slipped})

    @pytest.mark.parametrize("version", [1, 2, 3, 4])
    def test_the_pages_program_verifies_a_record_of_an_earlier_version(self, program, version):
        path = ROOT / "tests" / "unit" / "records" / "fixtures" / f"record-v{version}.json"
        earlier = json.loads(path.read_text(encoding="utf-8"))
        assert program["verify"](earlier["statement"], earlier["openings"])

    def test_the_example_has_the_fields_of_a_record_of_ours(self, example):
        made = draft(answer())
        assert fields(example[0]) == fields(json.loads(made.statement(1)))
        assert fields(example[1]) == fields(json.loads(made.openings))

    def test_every_field_of_the_statement_is_in_the_table(self, example):
        page = (
            RECORD_FORMAT.read_text(encoding="utf-8").split("## The statement")[1].split("## The openings")[0]
        )
        table = "\n".join(line for line in page.splitlines() if line.startswith("|"))
        named = {name for path in fields(example[0]) for name in path.split(".") if name and name != "[]"}
        inside_sampling = set(fields(example[0]["predicate"]["request"]["sampling"]))
        missing = {name for name in named - inside_sampling if not re.search(rf"\b{name}\b", table)}
        assert missing == set()


def fields(value, prefix="") -> dict[str, str]:
    """Paths of the leaves, with null as a leaf of any kind; a list stands for its first item."""
    if isinstance(value, dict):
        return {
            k: v for key, each in value.items() for k, v in fields(each, f"{prefix}.{key}".strip(".")).items()
        }
    if isinstance(value, list) and value:
        return fields(value[0], f"{prefix}.[]")
    return {prefix: ""}


def answer(*, failed: bool = False) -> Answer:
    moment, measured = datetime(2026, 2, 3, tzinfo=UTC), Measured(entropy=1.1, top_k_mass=0.3)
    tokens = [
        TokenLogprob(5, -0.1, 1, ((5, -0.1), (7, float("-inf"))), measured, b"\0\0\0\xbf" * 3),
        TokenLogprob(9, -2.7, 3, ((5, -1.1),), measured),
    ]
    made = Answer(
        record_id="rec_" + "0" * 26,
        project_id="local",
        key_id=None,
        model="m",
        deployment="sha256:" + "cd" * 32,
        endpoint="/v1/chat/completions",
        received=moment,
        answered=moment,
        status="complete",
        request={"messages": [{"role": "user", "content": "Wo? \U0001f600"}]},
        messages=[{"role": "user", "content": "Wo? \U0001f600"}],
        prompts=[(1, 2, 3)],
        sampling=SamplingParams(
            seed=-3,
            max_tokens=2,
            temperature=0.7,
            logprobs=2,
            stop=("\u00fc\n",),
            stop_token_ids=(5,),
            logit_bias=((3, 1e-05),),
            measures=Measures(entropy=True, rank=True, top_k_mass=10),
            distributions=(0,),
        ),
        seed_source="server",
        n=1,
        sequences=[(0, 0, SequenceResult(tokens=tokens, text="Dört\n", finish_reason="length"))],
        writes=[{"at": "z.0", "pos": "all", "op": "zero"}],
    )
    if not failed:
        return made
    second = TokenLogprob(2, -0.5, 1, ((2, -0.5),), Measured(), b"\0\0\0\xbf" * 3)
    known = (None, second, TokenLogprob(3, -9.5, 8, (), Measured()))
    broken = SequenceResult(tokens=tokens[:1], text="D", prompt_logprobs=known)
    sampling = SamplingParams(
        seed=-3,
        max_tokens=2,
        prompt_logprobs=1,
        prompt_measures=Measures(surprisal=True),
        prompt_distributions=(1,),
    )
    return replace(
        made,
        writes=None,
        status="failed",
        sampling=sampling,
        sequences=[(0, 0, broken)],
        error=Failure(code="engine_error", message="It broke."),
    )


def test_every_reason_of_a_replay_is_explained():
    parts = [
        sources.SOURCE / "services" / "evidence" / f"{name}.py"
        for name in ("replay", "retracing", "findings")
    ]
    source = "".join(part.read_text(encoding="utf-8") for part in parts)
    reasons = set(re.findall(r'Finding\("[A-Z]+", f?"([A-Z]+(?: [A-Z]+| at)?)', source))
    assert reasons > {"DIGEST", "RENDER", "TOKEN at", "TOP LOGPROBS", "TENSOR"}
    text = RECORDS.read_text(encoding="utf-8")
    assert [reason for reason in reasons if f"`{reason}" not in text] == []
