"""The field `transom` of completions and chat: what OpenAI's API has no words for."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator
from pydantic_core import InitErrorDetails

from transom.schema.plans.refs import Artifact
from transom.schema.plans.tensors import MAX_PLAN_BYTES, Inline
from transom.schema.plans.values import Loc, located, problem
from transom.schema.plans.writes import MAX_WRITES, Write
from transom.schema.randomness import JointSeedBody
from transom.schema.wire import Body, SamplingBody

_NO_RUNS = (
    "takes what another run has, and this request has no runs; write a number, an inline tensor or an "
    "artifact, or send a plan to /v1/traces"
)


class Extension(Body):
    """What is done inside the model while it answers, and how its seed is made."""

    write: list[Write] = Field(
        default_factory=list,
        max_length=MAX_WRITES,
        description="Changes, made in this order where they meet, in every sequence of the request. Values "
        "are numbers, inline tensors or artifacts. Positions are those of the prompt as it was rendered, "
        "then those of what is generated. An empty list changes nothing.",
        json_schema_extra={"default": []},
    )

    seed: JointSeedBody | None = Field(
        default=None,
        description="A seed that neither side picks, in the place of `seed`: of a secret that the server had "
        "promised and a nonce of yours. Both stand in the record",
    )

    @model_validator(mode="after")
    def _needs_nothing_else(self) -> Self:
        found = [finding for index, write in enumerate(self.write) for finding in _missing(index, write)]
        if found:
            raise located(*found)
        return self

    @model_validator(mode="after")
    def _holds_no_more_than_it_may(self) -> Self:
        total = 0
        for index, write in enumerate(self.write):
            total += write.value.nbytes if isinstance(write.value, Inline) else 0
            if total > MAX_PLAN_BYTES:
                loc: Loc = ("write", index, "value")
                message = "makes the writes hold more than {most} bytes of tensors; send smaller ones"
                raise located(problem(loc, "tensor", message, most=MAX_PLAN_BYTES))
        return self


def _missing(index: int, write: Write) -> list[InitErrorDetails]:
    """What a write takes that only a plan has."""
    found = [
        problem(("write", index, "value"), "reference", _NO_RUNS)
        for use in write.refs()
        if not isinstance(use.target, Inline | Artifact)
    ]
    message = "leaves the {axis} to a sweep, and this request has none; name it"
    for axis, field in write.placeholders.items():
        found.append(problem(("write", index, field), "sweep", message, axis=axis))
    return found


class SteeredBody(SamplingBody):
    """A request for tokens that may be generated under writes."""

    transom: Extension | None = Field(
        default=None,
        description="What Transom adds to OpenAI's fields: changes inside the model, and a seed that neither "
        "side picks.",
    )

    @property
    def writes(self) -> list[Write]:
        """The changes that are asked for."""
        return [] if self.transom is None else self.transom.write

    @property
    def joint_seed(self) -> JointSeedBody | None:
        """The seed that neither side picks, if one is asked for."""
        return None if self.transom is None else self.transom.seed
