"""The shapes of sites, and whether a value fits the one that it is written to."""

from __future__ import annotations

import math
from collections.abc import Sequence

from transom.errors import InvalidRequest
from transom.schema.changes import DIRECTED, WriteSpec
from transom.schema.program import ModelPoint, ReadSpec
from transom.services.planning.forms import Form, Shape
from transom.services.planning.positions import Line


def check_value(write: WriteSpec, value: Shape, line: Line, points: Sequence[ModelPoint], param: str) -> None:
    """Pass a value that fits the site that it is written to.

    Raises:
        InvalidRequest: it does not; names the field.
    """
    site = site_form(ReadSpec(name="", sites=(write.site,)), line, points)
    if not _fits(write, value, site.shape):
        positions, *own = site.shape
        raise InvalidRequest(
            f"The value has shape {list(value)}; the site has {positions} positions of "
            f"{' times '.join(map(str, own))} numbers.",
            param=param,
        )


def _fits(write: WriteSpec, value: Shape, site: Shape) -> bool:
    positions, *own = site
    if write.is_borrowed:
        return value == site
    fits = {math.prod(own), own[-1]}
    if write.op not in DIRECTED:
        fits |= {positions * size for size in tuple(fits)} | {1}
    return math.prod(value) in fits


def site_form(read: ReadSpec, line: Line, points: Sequence[ModelPoint]) -> Form:
    """[layers] positions [heads] width."""
    site = read.sites[0]
    point = next(each for each in points if each.name == site.point and site.layer in each.layers)
    has_heads = point.heads > 1 or bool(site.heads)
    return Form(
        (len(read.sites),) * read.layered
        + (len(site.positions),)
        + (len(site.heads) or point.heads,) * has_heads
        + (len(site.units) or point.width or line.prompt + line.most,),
        ("layer",) * read.layered + ("pos",) + ("head",) * has_heads + ("unit",),
    )
