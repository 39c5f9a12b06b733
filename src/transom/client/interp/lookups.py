"""What experiments have to know of a model first: token ids, their spelling, layers. Each is asked once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from transom.client import operations
from transom.client.interp.subject import Steps, Subject
from transom.client.interp.traces import Input, Pos
from transom.client.types import Tokens
from transom.errors import InvalidRequest
from transom.schema.point_views import PointPage, PointView

Answers: TypeAlias = "tuple[str | int, str | int]"
"""Two tokens whose logits are compared: texts that are one token each, such as `" Paris"`, or ids."""


def token(model: Subject[Any], text: str) -> Steps[int]:
    """The id of a text that is one token, such as `" Paris"`.

    Raises:
        InvalidRequest: it is several tokens.
    """
    found: Tokens = yield operations.tokenize(model.name, text, add_special_tokens=False)
    if found.count != 1:
        message = f"{text!r} is {found.count} tokens; name one token, with the space before it if it has one."
        raise InvalidRequest(message, param="token")
    return found.tokens[0]


def tokens(model: Subject[Any], prompt: Input) -> Steps[Tokens]:
    """A prompt's token ids, and what each is spelled like (`token_strs`)."""
    key = spelled(prompt)
    if key not in model.known.prompts:
        model.known.prompts[key] = yield from _tokens(model, prompt)
    return model.known.prompts[key]


def token_ids(model: Subject[Any], prompt: Input) -> Steps[tuple[int, ...]]:
    """A prompt's token ids; of the many prompts of a dataset nothing is kept in mind."""
    said = _said(prompt)
    if "token_ids" in said:
        return tuple(map(int, said["token_ids"]))
    found: Tokens = yield operations.spell(model.name, said)
    return found.tokens


def spelled(prompts: Any) -> str:  # noqa: ANN401
    """Prompts as one text, the same for the same ones."""
    return json.dumps(prompts, sort_keys=True, default=lambda array: np.asarray(array).tolist())


def _tokens(model: Subject[Any], prompt: Input) -> Steps[Tokens]:
    said = _said(prompt)
    if "token_ids" not in said:
        found: Tokens = yield operations.spell(model.name, said)
        return found
    ids = tuple(map(int, said["token_ids"]))
    told = yield from texts(model, ids)
    return Tokens(count=len(ids), max_model_len=0, tokens=ids, token_strs=tuple(told))


def _said(prompt: Input) -> Mapping[str, Any]:
    if isinstance(prompt, Mapping):
        return prompt
    if isinstance(prompt, str):
        return {"prompt": prompt}
    return {"messages": prompt} if isinstance(prompt[0], Mapping) else {"token_ids": prompt}


def texts(model: Subject[Any], token_ids: Iterable[int]) -> Steps[list[str]]:
    """What each of some tokens is spelled like."""
    ids = list(map(int, token_ids))
    for each in ids:
        if each not in model.known.texts:
            model.known.texts[each] = yield operations.detokenize(model.name, [each])
    return [model.known.texts[each] for each in ids]


def answer_ids(model: Subject[Any], answers: Answers) -> Steps[tuple[int, int]]:
    """The ids of two tokens that are given as texts or as ids."""
    first, second = answers
    return (yield from _id(model, first)), (yield from _id(model, second))


def _id(model: Subject[Any], given: str | int) -> Steps[int]:
    return (yield from token(model, given)) if isinstance(given, str) else int(given)


def point(model: Subject[Any], name: str) -> Steps[PointView]:
    """What the server says of a point.

    Raises:
        InvalidRequest: the model has it nowhere.
    """
    if not model.known.points:
        page: PointPage = yield operations.points(model.name)
        model.known.points = {each.name: each for each in page.data}
    found = model.known.points.get(name)
    if found is None or not found.readable:
        reason = (
            found.reason if found is not None else None
        ) or "there is no such point; leave out the layer"
        raise InvalidRequest(f"{model.name} has no {name}: {reason}.", param="at", code="unknown_point")
    return found


def common_length(model: Subject[Any], clean: Input, corrupt: Input) -> Steps[int]:
    """How many tokens each of two prompts has.

    Raises:
        InvalidRequest: not as many.
    """
    one, other = (yield from tokens(model, clean)), (yield from tokens(model, corrupt))
    if one.count != other.count:
        message = f"The prompts have {one.count} and {other.count} tokens; patching needs as many in both."
        raise InvalidRequest(message, param="corrupt")
    return one.count


def position_labels(
    model: Subject[Any], prompt: Input, pos: Pos, axis: str = "pos"
) -> Steps[Mapping[str, Sequence[str]]]:
    """The tokens at some positions of a prompt as labels; none where only the server can count them."""
    if isinstance(pos, Mapping):
        return {}
    told = (yield from tokens(model, prompt)).token_strs or ()
    if isinstance(pos, str):
        return {axis: told if pos == "all" else told[-1:]}
    return {axis: [told[place] for place in ([pos] if isinstance(pos, int) else pos)]}
