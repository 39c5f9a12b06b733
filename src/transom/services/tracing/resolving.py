"""A plan against the model at hand: what is asked exists and fits before anything runs."""

from __future__ import annotations

from dataclasses import replace

from transom.backends.base import Backend
from transom.errors import InvalidRequest, UnsupportedParameter
from transom.schema.changes import SiteSpec, TensorData, WriteSpec
from transom.schema.generation import SamplingParams
from transom.schema.plan import Plan
from transom.schema.plans.refs import Artifact, Derived, OtherRun, RunOutput, WholeRun, target_of
from transom.schema.plans.runs import Conversation, Generate, Input, Prompt, Run, Tokens
from transom.schema.plans.sites import LogitLens, Project, Read
from transom.schema.plans.tensors import Inline
from transom.schema.plans.writes import Write
from transom.schema.program import DeriveSpec, ReadSpec, RunSpec, Unembed
from transom.services.answering.ask import check_prompt, render
from transom.services.planning.deriving import derived
from transom.services.planning.positions import Line
from transom.services.planning.resolved import Known, Needed, Resolved, tensor_of
from transom.services.planning.siting import NO_CELL, Cell, Sites
from transom.services.planning.sweeping import Grid, grid_of
from transom.services.tracing.grading import Around, grad_of


class Resolver:
    """Resolves one plan.

    Args:
        backend: of the model.
        plan: checked as far as no model is needed.
        known: the artifacts that there are for it.
    """

    def __init__(self, backend: Backend, plan: Plan, known: Known) -> None:
        self._backend = backend
        self._plan = plan
        self._known = known
        self._named: dict[Artifact | int, str] = {}
        """Names of the values that were given, by artifact, or by identity of what stands in the plan."""
        self._sites = Sites(backend)
        self._found = Resolved()
        self._around = Around(self._sites, self._value, self._borrow, self._check_tokens)
        self._specs: dict[str, RunSpec] = {}
        self._borrowed: dict[str, dict[tuple[SiteSpec, Unembed | None], ReadSpec]] = {}

    def resolve(self) -> Resolved:
        """Resolve it.

        Raises:
            InvalidRequest: the model, or the project, has not what is asked for; names the field.
        """
        plan, found = self._plan, self._found
        self._find_artifacts()
        lines = {name: self._line(name, run) for name, run in plan.runs.items()}
        for name in plan.steps():
            if name.startswith("derive."):
                found.derive.append(derived(name, plan.derive[name.partition(".")[2]], self._value))
            elif name == plan.swept_run and plan.sweep is not None:
                self._sweep(name, lines[name], grid_of(plan, name, lines[name], self._sites))
            else:
                self._add(name, self._run(name, name, lines[name], NO_CELL), lines[name])
        # What others borrow is read in a run that was resolved before.
        found.runs = [
            replace(spec, reads=spec.reads + tuple(self._borrowed.get(name, {}).values()))
            for name, spec in self._specs.items()
        ]
        found.returns = tuple(plan.returns)
        return found

    def _find_artifacts(self) -> None:
        for loc, ref in self._plan.artifacts():
            if ref in self._named:
                continue
            param = ".".join(map(str, loc))
            tensor = tensor_of(ref, self._known.get(ref.sha256), param)
            name = self._named[ref] = f"artifact{len(self._named)}"
            self._found.artifacts[name] = Needed(ref.sha256, tensor, self._known[ref.sha256][tensor], param)

    def _add(self, name: str, spec: RunSpec, line: Line) -> None:
        self._specs[name] = spec
        self._found.lines[name] = line

    def _sweep(self, name: str, line: Line, grid: Grid) -> None:
        """A run for each cell, and what they read put together, with the sweep's axes in front."""
        names = [f"{name}@{index}" for index in range(len(grid.cells))]
        for own, cell in zip(names, grid.cells, strict=True):
            self._add(own, self._run(own, name, line, cell), line)
        run = self._plan.runs[name]
        values = [value for read in run.read for value in _tensors(read, run.read[read])]
        values += list(run.grad.wrt) if run.grad is not None else []
        values += [value for value in ("tokens", "logprobs") if value in run.outputs and run.generate]
        for value in values:
            of = tuple(f"{own}.{value}" for own in names)
            self._found.derive.append(DeriveSpec(name=f"{name}.{value}", op="stack", of=of, grid=grid.axes))

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

    def _run(self, own: str, name: str, line: Line, cell: Cell) -> RunSpec:
        """A run of the plan, or a cell of it, which has a name of its own."""
        run, where = self._plan.runs[name], f"runs.{name}"
        if run.grad is not None:
            self._found.echoes |= {f"{name}.{key}": site.name.canonical for key, site in run.grad.wrt.items()}
        return RunSpec(
            name=own,
            token_ids=line.token_ids,
            sampling=self._sampling(run.generate, f"{where}.generate"),
            reads=tuple(
                self._read(key, read, line, cell, f"{where}.read.{key}") for key, read in run.read.items()
            ),
            writes=tuple(
                self._write(write, line, cell, f"{where}.write.{index}")
                for index, write in enumerate(run.write)
            ),
            grad=grad_of(run, line, cell, self._around, f"{where}.grad"),
        )

    def _sampling(self, generate: Generate | None, param: str) -> SamplingParams:
        if generate is None:
            return SamplingParams(seed=self._plan.seed, max_tokens=0, temperature=0)
        stops = generate.stop_token_ids or []
        self._check_tokens(stops, f"{param}.stop_token_ids")
        return SamplingParams(
            seed=self._plan.seed,
            max_tokens=generate.max_tokens,
            temperature=generate.temperature,
            top_k=max(0, generate.top_k or 0),
            top_p=1.0 if generate.top_p is None else generate.top_p,
            min_p=generate.min_p or 0.0,
            stop_token_ids=tuple(stops),
            ignore_eos=generate.ignore_eos,
            logprobs=generate.logprobs,
        )

    def _check_tokens(self, tokens: list[int], param: str) -> None:
        vocabulary = self._backend.tokenizer.vocab_size
        for index, token in enumerate(tokens):
            if token >= vocabulary:
                raise InvalidRequest(
                    f"Token {token} does not exist; the vocabulary has {vocabulary}.",
                    param=f"{param}.{index}",
                )

    def _read(self, name: str, read: Read, line: Line, cell: Cell, param: str) -> ReadSpec:
        self._found.echoes[f"{param.split('.')[1]}.{name}"] = read.name.canonical
        if read.point.name == "lm_head":
            return self._logits(name, read, line, cell, param)
        spec = ReadSpec(
            name=name,
            sites=self._sites.resolve(read, line, cell, param),
            layered=read.has_layer_axis,
        )
        match read.reduce:
            case Project():
                direction, is_matrix = self._value(read.reduce.project), read.reduce.matrix
                return replace(spec, reduce="project", direction=direction, is_matrix=is_matrix)
            case LogitLens():
                return replace(spec, reduce="unembed", unembed=self._lens(read.reduce, param))
            case word:
                return replace(spec, reduce=word)

    def _logits(self, name: str, read: Read, line: Line, cell: Cell, param: str) -> ReadSpec:
        """What the output matrix gives for the model's own last rows; units are tokens."""
        if read.reduce != "none":
            raise UnsupportedParameter(
                "Logits are read as they are; reduce them with derive, or read resid_post of the last layer "
                "with unembed for logprobs.",
                param=f"{param}.reduce",
            )
        self._check_tokens(read.unit or [], f"{param}.unit")
        bare = read.model_copy(update={"at": "final_norm", "unit": None})
        lens = Unembed(targets=tuple(read.unit or ()), logits=True)
        sites = self._sites.resolve(bare, line, cell, param)
        return ReadSpec(name=name, sites=sites, reduce="unembed", unembed=lens)

    def _lens(self, lens: LogitLens, param: str) -> Unembed:
        kept = lens.unembed
        self._check_tokens(kept.targets or [], f"{param}.reduce.unembed.targets")
        vocabulary = self._backend.tokenizer.vocab_size
        return Unembed(topk=min(kept.topk or 0, vocabulary), targets=tuple(kept.targets or ()))

    def _write(self, write: Write, line: Line, cell: Cell, param: str) -> WriteSpec:
        self._found.echoes[param.removeprefix("runs.")] = write.name.canonical
        spec = self._sites.write(write, line, cell, param)
        match write.value:
            case OtherRun():
                return replace(spec, value=self._borrow(write.value.run, spec.site, param))
            case None | float():
                return spec
            case value:
                return replace(spec, value=self._value(value))

    def _borrow(self, source: str, site: SiteSpec, param: str, lens: Unembed | None = None) -> str:
        """The name of what another run has at a site, perhaps behind the output matrix."""
        line = self._found.lines[source]
        whole = line.prompt + line.most
        if site.positions[-1] >= line.end:
            raise InvalidRequest(
                f"Run {source} has no position {site.positions[-1]}; it has {line.end}.", param=f"{param}.pos"
            )
        if site.units and max(site.units) >= (self._sites.shape(site.point, site.layer).width or whole):
            raise InvalidRequest(
                f"Run {source} has no unit {max(site.units)} there; it has {whole} tokens.",
                param=f"{param}.unit",
            )
        reads = self._borrowed.setdefault(source, {})
        if (site, lens) not in reads:
            self._sites.count(len(site.positions) + len(site.heads) + len(site.units), param)
            # Nobody's own names begin so.
            read = ReadSpec(name=f"_{len(reads)}", sites=(site,))
            reads[site, lens] = read if lens is None else replace(read, reduce="unembed", unembed=lens)
        return f"{source}.{reads[site, lens].name}"

    def _value(self, ref: str | Inline) -> str:
        """The name of what a reference stands for."""
        match target_of(ref):
            case RunOutput(run=run, name=name, part=part):
                return f"{run}.{name}" + (f".{part}" if part else "")
            case Derived(name=name, part=part):
                return f"derive.{name}" + (f".{part}" if part else "")
            case Inline() as tensor:
                # The cells of a sweep share it.
                name = self._named.setdefault(id(tensor), f"inline{len(self._named)}")
                if name not in self._found.tensors:
                    self._found.tensors[name] = TensorData.of(tensor.array())
                return name
            case Artifact() as artifact:
                return self._named[artifact]
            case WholeRun():
                raise AssertionError("a run is no value")


def _tensors(name: str, read: Read) -> list[str]:
    """The names of the tensors that a read gives."""
    return [f"{name}.{part}" for part in read.parts] or [name]
