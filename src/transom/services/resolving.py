"""A plan against the model at hand: what is asked exists, fits, and is known in size before anything runs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

from transom.backends.base import Backend
from transom.errors import InvalidRequest
from transom.schema.generation import SamplingParams
from transom.schema.plans.expressions import operation
from transom.schema.plans.plan import Plan
from transom.schema.plans.runs import (
    Conversation,
    FromRun,
    Generate,
    Input,
    Project,
    Prompt,
    Read,
    Run,
    Tokens,
    Write,
)
from transom.schema.plans.runs import Unembed as Lens
from transom.schema.plans.sites import Site
from transom.schema.plans.tensors import Inline
from transom.schema.points import READ_ONLY
from transom.schema.program import (
    GLOBAL,
    DeriveSpec,
    ModelPoint,
    ReadSpec,
    RunSpec,
    SiteSpec,
    TensorData,
    Unembed,
    WriteOp,
    WriteSpec,
)
from transom.services.ask import check_prompt, render
from transom.services.positions import Line, resolve

_LENS_POINTS = frozenset(
    {"resid_pre", "resid_mid", "resid_post", "embeddings", "final_norm", "attn_out_post", "mlp_out_post"}
)
"""Points in the residual stream, to which the output matrix can be applied."""


@dataclass
class Resolved:
    """A plan, resolved."""

    runs: list[RunSpec] = field(default_factory=list)
    derive: list[DeriveSpec] = field(default_factory=list)
    returns: tuple[str, ...] = ()
    tensors: dict[str, TensorData] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    echoes: dict[str, str] = field(default_factory=dict)
    """Of each read, the canonical point that it reads."""


class Resolver:
    """Resolves one plan.

    Args:
        backend: of the model.
        plan: checked as far as no model is needed.
    """

    def __init__(self, backend: Backend, plan: Plan) -> None:
        self._backend = backend
        self._plan = plan
        self._points: defaultdict[str, list[ModelPoint]] = defaultdict(list)
        for point in backend.points:
            self._points[point.name].append(point)
        self._swapped: defaultdict[str, list[ReadSpec]] = defaultdict(list)
        self._found = Resolved()

    def resolve(self) -> Resolved:
        """Resolve it.

        Raises:
            InvalidRequest: the model has not what is asked for; names the field.
        """
        found, plan = self._found, self._plan
        order = plan.order()
        for name in order:
            found.lines[name] = self._line(name, plan.runs[name])
        specs = {name: self._run(name, plan.runs[name]) for name in order}
        # A swap reads in a run that may have been resolved before.
        found.runs = [
            replace(specs[name], reads=specs[name].reads + tuple(self._swapped[name])) for name in order
        ]
        found.derive = [self._derived(name) for name in plan.derived_order()]
        found.returns = tuple(dict.fromkeys(plan.returns))
        return found

    def _line(self, name: str, run: Run) -> Line:
        token_ids = self._token_ids(run.input, f"runs.{name}.input")
        most = run.generate.max_tokens if run.generate is not None else 0
        limit = self._backend.served.deployment.policy.max_model_len
        if len(token_ids) + most > limit:
            raise InvalidRequest(
                f"The run has {len(token_ids)} tokens and asks for {most} more; the context has {limit}.",
                param=f"runs.{name}.input",
                code="context_length_exceeded",
            )
        return Line(token_ids, most)

    def _token_ids(self, given: Input, param: str) -> tuple[int, ...]:
        tokenizer = self._backend.tokenizer
        match given:
            case Tokens():
                found = tuple(given.token_ids)
            case Conversation():
                found = render(self._backend, [message.plain() for message in given.messages])
            case Prompt():
                found = tuple(tokenizer.encode(given.prompt, add_special_tokens=given.add_special_tokens))
            case str():
                found = tuple(tokenizer.encode(given))
        check_prompt(self._backend, found, "The prompt", param)
        return found

    def _run(self, name: str, run: Run) -> RunSpec:
        where = f"runs.{name}"
        return RunSpec(
            name=name,
            token_ids=self._found.lines[name].token_ids,
            sampling=self._sampling(run.generate, f"{where}.generate"),
            reads=tuple(self._read(name, key, read) for key, read in run.read.items()),
            writes=tuple(
                self._write(name, write, f"{where}.write.{index}") for index, write in enumerate(run.write)
            ),
        )

    def _sampling(self, generate: Generate | None, param: str) -> SamplingParams:
        if generate is None:
            return SamplingParams(seed=self._plan.seed, max_tokens=0, temperature=0)
        vocabulary = self._backend.tokenizer.vocab_size
        for index, token in enumerate(generate.stop_token_ids):
            if token >= vocabulary:
                raise InvalidRequest(
                    f"Token {token} does not exist; the vocabulary has {vocabulary}.",
                    param=f"{param}.stop_token_ids.{index}",
                )
        return SamplingParams(
            seed=self._plan.seed,
            max_tokens=generate.max_tokens,
            temperature=generate.temperature,
            top_k=generate.top_k,
            top_p=generate.top_p,
            min_p=generate.min_p,
            stop_token_ids=tuple(generate.stop_token_ids),
            ignore_eos=generate.ignore_eos,
            logprobs=generate.logprobs,
        )

    def _read(self, run: str, name: str, read: Read) -> ReadSpec:
        param = f"runs.{run}.read.{name}"
        sites = self._sites(run, read, param)
        spec = ReadSpec(name=name, sites=sites, layered=read.point.layered)
        self._found.echoes[f"{run}.{name}"] = _spelled(read)
        match read.reduce:
            case Project():
                return replace(spec, reduce="project", direction=self._value(read.reduce.project))
            case Lens():
                return replace(spec, reduce="unembed", unembed=self._lens(read, sites[0], param))
            case word:
                return replace(spec, reduce=word)

    def _lens(self, read: Read, site: SiteSpec, param: str) -> Unembed:
        if site.point not in _LENS_POINTS or site.units:
            raise InvalidRequest(
                "The output matrix is applied to whole rows of the residual stream, at "
                f"{', '.join(sorted(_LENS_POINTS))}.",
                param=f"{param}.at" if not site.units else f"{param}.unit",
            )
        kept = read.reduce.unembed  # type: ignore[union-attr]
        targets = tuple(getattr(kept, "targets", ()))
        vocabulary = self._backend.tokenizer.vocab_size
        if targets and max(targets) >= vocabulary:
            raise InvalidRequest(
                f"Token {max(targets)} does not exist; the vocabulary has {vocabulary}.",
                param=f"{param}.reduce.unembed.targets",
            )
        return Unembed(topk=min(getattr(kept, "topk", 0), vocabulary), targets=targets)

    def _write(self, run: str, write: Write, param: str) -> WriteSpec:
        (site,) = self._sites(run, write, param)
        if site.point in READ_ONLY:
            raise InvalidRequest(f"{site.point} can be read and not written.", param=f"{param}.at")
        # What another run has, or what is left of it on average, is set like any other value.
        op: WriteOp = "set" if write.op == "mean" or write.op == "swap" else write.op  # noqa: PLR1714
        spec = WriteSpec(site=site, op=op, scale=1.0 if write.scale is None else write.scale)
        match write.value:
            case FromRun():
                return replace(spec, value=self._swap(write.value.run, site, param))
            case None:
                return spec
            case float():
                return replace(spec, number=write.value)
            case value:
                return replace(spec, value=self._value(value))

    def _swap(self, source: str, site: SiteSpec, param: str) -> str:
        """The name of what another run has at a site."""
        line = self._found.lines[source]
        if site.positions[-1] >= line.end:
            raise InvalidRequest(
                f"Run {source} has no position {site.positions[-1]}; it has {line.end}.", param=f"{param}.pos"
            )
        reads = self._swapped[source]
        # Nobody's own names begin so.
        reads.append(ReadSpec(name=f"_{len(reads)}", sites=(site,)))
        return f"{source}.{reads[-1].name}"

    def _value(self, ref: str | Inline) -> str:
        if isinstance(ref, str):
            return ref
        name = f"inline{len(self._found.tensors)}"
        array = ref.array
        self._found.tensors[name] = TensorData(shape=array.shape, data=array.astype("<f4").tobytes())
        return name

    def _derived(self, name: str) -> DeriveSpec:
        expr = self._plan.derive[name]
        op, operands = operation(expr)
        number = float(getattr(expr, "by", getattr(expr, "k", 0)))
        return DeriveSpec(
            name=name,
            op=op,  # type: ignore[arg-type]
            of=tuple(self._value(operand) for operand in operands),
            number=number,
            axis=getattr(expr, "axis", ""),
        )

    def _sites(self, run: str, site: Site, param: str) -> tuple[SiteSpec, ...]:
        point = site.point
        known = [each for each in self._points[point.point] if each.layers]
        if not known:
            raise InvalidRequest(self._nowhere(point.point), param=f"{param}.at", code="unknown_point")
        layers = sorted(layer for each in known for layer in each.layers)
        wanted = self._layers(site, layers, param)
        positions = resolve(site.pos, self._found.lines[run], self._backend.tokenizer, f"{param}.pos")
        shape = next(each for each in known if wanted[0] in each.layers)
        if any(layer not in shape.layers for layer in wanted):
            raise InvalidRequest(
                f"{point.point} has another shape in other layers; read those apart.", param=f"{param}.at"
            )
        width = shape.width or self._found.lines[run].prompt + self._found.lines[run].most
        heads = _within(site.head, shape.heads if shape.heads > 1 else 0, "head", param)
        units = _within(site.unit, width, "unit", param)
        return tuple(
            SiteSpec(point=point.point, layer=layer, positions=positions, heads=heads, units=units)
            for layer in wanted
        )

    def _layers(self, site: Site, layers: list[int], param: str) -> list[int]:
        point = site.point
        if layers == [GLOBAL]:
            if point.first is not None or point.every:
                raise InvalidRequest(
                    f"{point.point} belongs to no layer; name it alone.", param=f"{param}.at"
                )
            return layers
        if point.every:
            return layers
        if point.first is None or point.last is None:
            raise InvalidRequest(
                f"{point.point} is in each layer; name one, as in {point.point}.{layers[0]}.",
                param=f"{param}.at",
            )
        wanted = list(range(point.first, point.last + 1))
        missing = [layer for layer in wanted if layer not in layers]
        if missing:
            raise InvalidRequest(
                f"There is no {point.point} in layer {missing[0]}; {layers[0]} to {layers[-1]} have it.",
                param=f"{param}.at",
            )
        return wanted

    def _nowhere(self, name: str) -> str:
        reasons = [point.reason for point in self._points[name] if point.reason]
        if reasons:
            return f"{name} is nowhere in this model: {reasons[0]}"
        there = sorted(name for name, points in self._points.items() if any(each.layers for each in points))
        return f"There is no point {name}; there are: {', '.join(there)}."


def _within(numbers: list[int] | None, count: int, what: str, param: str) -> tuple[int, ...]:
    if numbers is None:
        return ()
    if numbers[-1] >= count:
        raise InvalidRequest(
            f"There is no {what} {numbers[-1]} here; there are {count}, counted from 0.",
            param=f"{param}.{what}",
        )
    return tuple(numbers)


def _spelled(site: Site) -> str:
    point = site.point
    if point.every:
        return f"{point.point}.*"
    if point.first is None:
        return point.point
    return f"{point.point}.{point.first}" + (f"-{point.last}" if point.layered else "")
