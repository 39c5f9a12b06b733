"""Runs: one input, what is generated from it, what is changed in its computation, and what is read of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import Field, TypeAdapter, model_validator
from pydantic_core import InitErrorDetails

from transom.schema.generation import MAX_TOP_LOGPROBS
from transom.schema.messages import Message
from transom.schema.plans.grads import Dot, Grad
from transom.schema.plans.refs import Use
from transom.schema.plans.sites import Read, Site
from transom.schema.plans.values import Loc, Name, by_key, form, located, one_of, problem
from transom.schema.plans.writes import MAX_WRITES, Write
from transom.schema.wire import Body, TokenId

MAX_READS = 64
MAX_INPUT_TOKENS = 1 << 20
MAX_INPUT_CHARACTERS = 1 << 23

GENERATED = ("tokens", "logprobs")
"""What a run that generates offers beside its reads; no read of it is called so."""


# A length, however large, also makes pydantic refuse half of a surrogate pair, which no tokenizer takes.
_Words = Annotated[str, Field(max_length=MAX_INPUT_CHARACTERS)]


class Conversation(Body):
    """Turns, which the model's chat template makes a prompt of."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]


class Tokens(Body):
    """Token ids, taken as they are."""

    token_ids: Annotated[list[TokenId], Field(min_length=1, max_length=MAX_INPUT_TOKENS)]


class Prompt(Body):
    """Text, with a say in what the tokenizer adds."""

    prompt: _Words
    add_special_tokens: bool = Field(
        default=True, description="Whether it gets what the tokenizer adds, such as a first token."
    )


_TEXT = form(_Words)
_INPUTS: dict[str, TypeAdapter[Any]] = {
    "messages": form(Conversation),
    "token_ids": form(Tokens),
    "prompt": form(Prompt),
}

Input = Annotated[
    _Words | Conversation | Tokens | Prompt,
    one_of(
        lambda value: _TEXT if isinstance(value, str) else by_key(_INPUTS, value),
        "must be text, or an object with one of messages, token_ids and prompt",
    ),
]


class Generate(Body):
    """How to continue the input."""

    max_tokens: int = Field(ge=1, le=2**31)
    temperature: float = Field(default=0.0, ge=0, le=10, description="0 is greedy.")
    top_k: int | None = Field(default=None, ge=-1, le=2**31, description="0 or -1 keeps all tokens.")
    top_p: float | None = Field(default=None, gt=0, le=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    stop_token_ids: list[TokenId] | None = Field(default=None, max_length=64)
    ignore_eos: bool = False
    logprobs: int | None = Field(
        default=None,
        ge=0,
        le=MAX_TOP_LOGPROBS,
        description="Report the logprob of each generated token, and how many of the likeliest beside it.",
    )


class Run(Body):
    """One pass of the model over one input."""

    input: Input
    generate: Generate | None = Field(default=None, description="Left out, nothing is generated.")
    write: list[Write] = Field(
        default_factory=list,
        max_length=MAX_WRITES,
        description="Changes, made in this order where they meet.",
        json_schema_extra={"default": []},
    )
    read: dict[Name, Read] = Field(
        default_factory=dict,
        max_length=MAX_READS,
        description="What to read, by name; offered as `run.name`.",
        json_schema_extra={"default": {}},
    )
    grad: Grad | None = None

    @model_validator(mode="after")
    def _offers_each_name_once(self) -> Self:
        found: list[InitErrorDetails] = []
        taken = GENERATED if self.generate is not None else ()
        for group, names in (("read", self.read), ("wrt", self._wrt)):
            loc: Loc = ("read",) if group == "read" else ("grad", "wrt")
            for name in names:
                if name in taken:
                    message = "is offered by a run that generates; choose another name"
                    found.append(problem((*loc, name), "name", message))
                if group == "wrt" and name in self.read:
                    message = "is the name of a read of this run too; choose another name"
                    found.append(problem((*loc, name), "name", message))
        if found:
            raise located(*found)
        return self

    @model_validator(mode="after")
    def _generates_what_it_looks_at(self) -> Self:
        if self.generate is not None:
            return self
        message = "means generated tokens, and this run generates none; add generate to it"
        found = [
            problem((*loc, "pos"), "positions", message) for loc, site in self.sites() if site.is_of_generated
        ]
        if found:
            raise located(*found)
        return self

    @property
    def _wrt(self) -> dict[str, Site]:
        return self.grad.wrt if self.grad is not None else {}

    @property
    def outputs(self) -> dict[str, tuple[str, ...]]:
        """What it offers to references, by name; with the names of its tensors where they are two."""
        found: dict[str, tuple[str, ...]] = {name: read.parts for name, read in self.read.items()}
        found |= dict.fromkeys(self._wrt, ())
        if self.generate is not None:
            found["tokens"] = ()
            if self.generate.logprobs is not None:
                found["logprobs"] = ()
        return found

    def sites(self) -> Iterator[tuple[Loc, Site]]:
        """All its sites, each with where it stands."""
        for index, write in enumerate(self.write):
            yield ("write", index), write
        for name, read in self.read.items():
            yield ("read", name), read
        for name, site in self._wrt.items():
            yield ("grad", "wrt", name), site
        if self.grad is not None and isinstance(self.grad.of, Dot):
            yield ("grad", "of", "dot", 0), self.grad.of.dot[0]

    def refs(self) -> list[Use]:
        """What it takes from elsewhere."""
        writes = [use.below("write", index) for index, write in enumerate(self.write) for use in write.refs()]
        reads = [use.below("read", name) for name, read in self.read.items() for use in read.refs()]
        grads = [use.below("grad") for use in self.grad.refs()] if self.grad is not None else []
        return [*writes, *reads, *grads]
