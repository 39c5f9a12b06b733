"""Work that threads take as they come to it.

A loop that is dealt out beforehand lasts as long as its slowest thread, and on a machine that does other work
too there always is one. Which thread computes what never shows in a result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from transom.engine.kernels.arrays import Longs
from transom.engine.kernels.compile import kernel


def _take(_typing: Any, _counter: Any) -> Any:  # noqa: ANN401
    """The next number of a counter [1] of int64 that threads share; for kernels.

    for _ in numba.prange(threads):
        work = take(counter)
        while work < total:
            ...
            work = take(counter)
    """

    def generate(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:  # noqa: ANN401
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.atomic_rmw("add", array.data, context.get_constant(types.int64, 1), "monotonic")

    return types.int64(_counter), generate


take: Callable[[Longs], int] = intrinsic(_take)  # type: ignore[assignment]


@kernel
def new_counter() -> Longs:
    """A counter that begins at 0."""
    return np.zeros(1, np.int64)
