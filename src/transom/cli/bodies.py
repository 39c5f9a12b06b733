"""From options and files to the bodies of requests, with errors that name the field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from transom.errors import InvalidRequest
from transom.schema.budgets import BUDGETS

B = TypeVar("B", bound=BaseModel)


def checked(kind: type[B], fields: Mapping[str, Any]) -> B:
    """A body of `kind`.

    Raises:
        InvalidRequest: a field is wrong; the message names the first.
    """
    try:
        return kind.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        # A union names in brackets which of its members it tried.
        param = ".".join(str(part) for part in first["loc"] if "[" not in str(part))
        what = "there is no such field" if first["type"] == "extra_forbidden" else first["msg"]
        raise InvalidRequest(f"{param or 'the whole'}: {what[:1].lower()}{what[1:]}", param=param) from error


def amounts(options: Iterable[str]) -> dict[str, int] | None:
    """Quotas from options such as `tokens_total=5_000_000`; None where there is none.

    Raises:
        InvalidRequest: there is no such budget, or that is no amount.
    """
    found: dict[str, int] = {}
    for option in options:
        name, _, amount = option.partition("=")
        if name not in BUDGETS or not amount.replace("_", "").isdecimal():
            raise InvalidRequest(
                f"{option!r} is no quota; write tokens_total=5000000, with one of {', '.join(BUDGETS)}.",
                param="quota",
            )
        found[name] = int(amount)
    return found or None
