"""The reference page of plans: their grammar, part by part, and the table of points."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.markdown import NOTE, first_paragraph, table
from transom.schema import plan, points
from transom.schema.plans import derive, grads, refs, runs, sites, sweeps, tensors, writes
from transom.schema.program import SPILLED_FROM
from transom.schema.wire import MAX_POSITIONS, Body
from transom.services import spool
from transom.services.planning import siting, sizes
from transom.services.tracing import traces

GROUPS: dict[str, tuple[type[Body], ...]] = {
    "The whole": (plan.Plan, runs.Run, sweeps.Sweep),
    "Inputs of a run, beside plain text": (runs.Prompt, runs.Conversation, runs.Tokens),
    "What a run does": (runs.Generate, sites.Site, sites.Read, writes.Write, refs.OtherRun, grads.Grad),
    "Positions, beside words, numbers and lists": (sites.Span, sites.Match, sites.Phase),
    "Reductions of a read, beside words": (sites.Project, sites.LogitLens, sites.Unembed),
    "Metrics of a gradient": (grads.LogitDiff, grads.Logprob, grads.Divergence, grads.Dot),
    "Modes of a gradient, beside words": (grads.GradDelta, grads.Integrated),
    "Derived values": (
        derive.Sub,
        derive.Add,
        derive.Scale,
        derive.Mean,
        derive.Stack,
        derive.DotProduct,
        derive.Normalize,
        derive.TopK,
    ),
    "Tensors that stand in the plan": (tensors.Inline, tensors.Packed),
}
"""Parts of a plan, in the order in which somebody meets them."""

_WIDTHS = {
    "residual": "as wide as the residual stream",
    "heads*dim": "of each head, as many as it is wide",
    "kv_heads*dim": "of each key-value head, as many as it is wide",
    "neurons": "one for each neuron",
    "keys": "of each head, one for each position",
    "vocabulary": "one for each token of the vocabulary",
}

_LIMITS = (
    ("runs of a plan", plan.MAX_RUNS),
    ("derived values of a plan", plan.MAX_DERIVED),
    ("values returned", plan.MAX_RETURNED),
    ("reads of a run", runs.MAX_READS),
    ("writes of a run", runs.MAX_WRITES),
    ("gradients of a run", grads.MAX_GRADIENTS),
    ("steps of an integrated gradient", grads.MAX_STEPS),
    ("cells of a sweep", sweeps.MAX_CELLS),
    ("positions in one list", MAX_POSITIONS),
    ("operands of a derived value", derive.MAX_OPERANDS),
    ("target tokens of one logit lens", sites.MAX_TARGETS),
    ("positions, heads and units of all sites of a plan together", siting.MAX_PLACES),
    ("bytes of one inline tensor, decoded", tensors.MAX_INLINE_BYTES),
    ("bytes of all inline tensors of a plan, decoded", tensors.MAX_PLAN_BYTES),
    ("bytes of one plan's values in memory", sizes.MAX_BYTES),
    ("bytes of what one plan reads on disk", sizes.MAX_SPILLED),
    ("bytes of what one plan reads, all of them in memory", sizes.SPILLS_ABOVE),
    ("bytes of an array in memory, in a plan that reads more", SPILLED_FROM - 1),
    ("bytes of an answer as safetensors", traces.MAX_ANSWER_BYTES),
    ("bytes of a part", traces.PART_BYTES),
    ("bytes of results that are kept for a project", spool.MAX_KEPT_BYTES),
    ("seconds that a result is kept", int(spool.KEPT_FOR.total_seconds())),
    ("bytes of an answer as JSON", traces.MAX_JSON_BYTES),
)


def plans() -> Iterator[str]:
    """`plans.md`."""
    yield from ("# Plans", "", NOTE, "")
    yield "The body of [`POST /v1/traces`](api.md#post-v1traces): what to run, what to change and read, and"
    yield "what to make of it. How to begin is in [Look inside](../howto/look-inside.md), what happens then"
    yield "in [Inside the machine](../explanation/internals.md)."
    yield ""
    yield from _parts()
    yield from _references()
    yield from _writes()
    yield from _values()
    yield from _points()
    yield from _aliases()
    yield from _limits()
    yield from _refusals()


def _parts() -> Iterator[str]:
    yield from ("## Parts", "", "Types, defaults and limits of each field stand behind the link.", "")
    for group, kinds in GROUPS.items():
        yield from (f"### {group}", "")
        yield from table(("part", "fields", "what it is"), [_part_row(kind) for kind in kinds])


def _part_row(kind: type[Body]) -> tuple[str, ...]:
    fields = ", ".join(f"`{field.alias or name}`" for name, field in kind.model_fields.items())
    link = f"[{kind.__name__}](api.md#{kind.__name__.lower()})"
    return link, fields, first_paragraph(kind.__doc__)


def _references() -> Iterator[str]:
    yield from ("## References", "")
    rows = [
        ("`run.name`", "what the run reads, or a gradient of it, by that name"),
        ("`run.tokens`", "the token ids that the run generates, where it has `generate`"),
        ("`run.logprobs`", "their logprobs, where `generate` has `logprobs`"),
        ("`run.name.ids`, `run.name.logprobs`", "one tensor of a logit lens with `topk`"),
        ("`derive.name`", "a derived value; of `topk`, `derive.name.ids` or `derive.name.values`"),
        ("`artifact:SHA256`", "the only tensor of an artifact of the project; not in `return`"),
        ("`artifact:SHA256#tensor`", "one tensor of an artifact"),
        ('`{"inline": …}`', "a tensor that stands in the plan; not in `return`"),
    ]
    yield from table(("spelling", "what it names"), rows)
    yield "Runs and derived values may take values of each other, as long as that closes no cycle."
    yield ""


def _writes() -> Iterator[str]:
    yield from ("## Operations of writes", "")
    rows = [
        (f"`{name}`", each.value, each.scale, each.description) for name, each in writes.OPERATIONS.items()
    ]
    yield from table(("`op`", "`value`", "`scale`", "what it does"), rows)
    yield "Where writes of a run meet, they are made in their order. At one place a run writes before it"
    yield "reads."
    yield ""


def _values() -> Iterator[str]:
    yield from ("## Axes of values", "")
    rows = [
        ("`sweep_layer`, `sweep_pos`, `sweep_head`", "the sweep's, in this order, in front of all others"),
        ("`layer`", "where `at` means several layers"),
        ("`pos`", "positions; gone after the reduction `mean`"),
        ("`head`", "at points that have heads"),
        ("`unit`", "the numbers of a position, or of each head; gone after `norm` and `project`"),
        ("`direction`", "in the place of `unit` after `project` with `matrix`: the rows of the matrix"),
        ("`token`, `rank`", "in the place of `unit` after the logit lens: tokens, or the likeliest in order"),
        ("`stack`", "of the derived value `stack`"),
        ("`step`", "generated tokens, of `run.tokens` and `run.logprobs`"),
    ]
    yield from table(("axis", "when it is there"), rows)
    yield "Numbers are float32, whatever the model computes in; token ids are int32. In safetensors the axes"
    yield "of a tensor are the metadata `axes.NAME`, joined by commas, and `record` is the record's id."
    yield ""


def _points() -> Iterator[str]:
    yield from ("## Points", "")
    yield "In the order of the computation. A model may have fewer, or allow less:"
    yield "[`GET /v1/points`](api.md#get-v1points) tells which layers have which, how wide, for what use, and"
    yield "of those that are nowhere, why."
    yield ""
    rows = map(_point_row, points.POINTS.values())
    yield from table(("point", "numbers of a position", "use", "what it is"), rows)


def _point_row(point: points.Point) -> tuple[str, ...]:
    uses = {"read": point.readable, "write": point.writable, "gradient": point.differentiable}
    name = f"`{point.name}.LAYER`" if point.layered else f"`{point.name}`"
    return name, _WIDTHS[point.width], ", ".join(use for use, may in uses.items() if may), point.description


def _aliases() -> Iterator[str]:
    yield from ("## Names of other libraries", "", "Taken where they mean the very same value:", "")
    rows = [
        (f"`blocks.LAYER.{name}`", f"`{point}.LAYER`")
        for name, point in points.TRANSFORMER_LENS_BLOCK.items()
    ]
    rows += [(f"`{name}`", f"`{point}`") for name, point in points.TRANSFORMER_LENS_GLOBAL.items()]
    rows += [(f"`{name}[LAYER]`", f"`{point}.LAYER`") for name, point in points.NNTERP.items()]
    yield from table(("name", "point"), rows)
    yield "Paths of transformers' modules too, with `.input` or `.output`, as in `model.layers.5.mlp.input`:"
    yield "`GET /v1/points` says under `module` which input or output a point is. Without either, the output"
    yield "is meant; norms are left out, for what they are called says little of where they stand."
    yield ""
    yield from ("Refused, for they mean something close to a point, and not the same:", "")
    yield from table(("name", "what it"), [(f"`{name}`", why) for name, why in points.NEARLY.items()])


def _limits() -> Iterator[str]:
    yield from ("## Limits", "")
    yield from table(("most", "number"), [(what, f"{most:,}") for what, most in _LIMITS])
    yield "Shapes are known before a plan runs, so that one which is too large is refused and not charged."
    yield "All plans that run may put on the server's disk no more than half of what is free there."
    yield ""
    yield from ("## Large results", "")
    yield "With `format` `parts` the answer is a manifest in JSON. Beside what every JSON answer says, but"
    yield "for `data`, it has"
    yield ""
    yield from table(
        ("field", "what it is"),
        [
            ("`file.url`, `file.bytes`", "where the file is fetched, whole or by byte ranges; its size"),
            ("`parts`", "`start`, `bytes` and `sha256` of each part of the file, one behind the other"),
            ("`expires`", "until when it is kept"),
        ],
    )
    yield "The file is safetensors, as in a whole answer. It is for keys of the same project that have the"
    yield "scopes of the plan; for all others, and after its time, there is none (404). A result is kept for"
    yield "an hour, and not beyond a restart of the server; the same plan gives the same bytes."
    yield ""


def _refusals() -> Iterator[str]:
    yield from ("## What is refused", "", "`param` names the field, as in `runs.clean.read.lens.at`.", "")
    rows = [
        ("`unknown_parameter`", "400", "a field that there is not"),
        ("`missing_parameter`", "400", "a field that is needed is absent or null"),
        ("`invalid_value`", "400", "a value that is malformed, does not fit, or is not there in this model"),
        ("`unsupported_parameter`", "400", "what is not offered yet, such as gradients of a run that writes"),
        ("`unknown_artifact`", "400", "an artifact that the project has not, or a tensor that it has not"),
        ("`unknown_point`", "400", "a point that exists, and that this model has nowhere"),
        ("`context_length_exceeded`", "400", "a run's input and `max_tokens` are longer than the context"),
        ("`plan_too_large`", "400", "its values, its sites, or its answer are above a limit"),
        (
            "`policy_refused`",
            "403",
            "with what was told before, it would tell too much of a weight matrix; names the matrix",
        ),
        ("`plan_failed`", "400", "it ran, and its values did not allow what follows; it is on record"),
        ("`range_not_satisfiable`", "416", "a byte range that begins beyond the end of the file"),
        ("`rate_limit_exceeded`", "429", "the results that the project keeps are as much as it may keep"),
        ("`server_overloaded`", "503", "other plans have taken what the disk has room for"),
        ("`insufficient_scope`", "403", "the key lacks a [scope](scopes.md); the message names it"),
    ]
    yield from table(("code", "status", "when"), rows)
    yield "The rest is in [Errors](errors.md)."
