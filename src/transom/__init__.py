"""Open access to AI models whose weights stay where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]

if TYPE_CHECKING:
    from transom.client import AsyncClient, Client
else:
    # The client is a top layer, and every module imports this one: a server must not load it by accident.
    def __getattr__(name):  # noqa: ANN001, ANN202
        """Load the client when it is first asked for (PEP 562)."""
        if name not in {"AsyncClient", "Client"}:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib  # noqa: PLC0415

        return getattr(importlib.import_module("transom.client"), name)
