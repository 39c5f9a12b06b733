"""Replaying records out of files, with the weights of their model at hand, and no server."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transom.errors import InvalidRequest, ModelRefused
from transom.schema.record import RecordView, ReplayReport

_MANIFEST = "transom.manifest.json"

if TYPE_CHECKING:
    from transom.services.house import House


def replay_with(weights: Path, views: Sequence[RecordView]) -> list[ReplayReport]:
    """Replay records; the reports, in their order.

    Args:
        weights: folder of a model root, with its manifest.
        views: records of one model.

    Raises:
        InvalidRequest: the server and engine are not installed, or the records are of several models.
        ModelRefused: the model root is not what its manifest says, or cannot be served exactly.
    """
    if find_spec("fastapi") is None or find_spec("torch") is None:
        raise InvalidRequest(
            'Replaying needs the engine: pip install "transom[server,engine]", or leave --weights out.',
            param="weights",
        )
    if not (weights / _MANIFEST).is_file():
        raise InvalidRequest(f"{weights} is no model root: there is no {_MANIFEST} in it.", param="weights")
    names = sorted({view.model for view in views})
    if len(names) != 1 or os.sep in names[0] or names[0].startswith("."):
        raise InvalidRequest(
            f"Records of {', '.join(names)[:200]} have to be replayed one model at a time.", param="weights"
        )
    with tempfile.TemporaryDirectory(prefix="transom-") as folder:
        library = Path(folder) / "models"
        library.mkdir()
        (library / names[0]).symlink_to(weights.resolve(), target_is_directory=True)
        return asyncio.run(_replay(Path(folder), views))


async def _replay(home: Path, views: Sequence[RecordView]) -> list[ReplayReport]:
    from transom.app import create_app, local_backends
    from transom.config import Settings
    from transom.services.evidence.offline import replay_files

    # A house of its own, whatever else is set for a server on this machine; number format and threads are.
    elsewhere = ("database_url", "artifacts_url", "signing_file", "vault_file", "vault_key", "beacon")
    of_the_log = ("log_origin", "log_key_file", "log_folder", "log_policy")
    own: dict[str, Any] = {"home": home, "models": ()} | dict.fromkeys((*elsewhere, *of_the_log))
    settings = Settings(**own)
    refused: asyncio.Queue[ModelRefused] = asyncio.Queue()
    backends = local_backends(settings)
    app = create_app(settings, backends=backends, on_refusal=refused.put_nowait)
    async with app.router.lifespan_context(app):
        house: House = app.state.house
        while not all(backend.ready for backend in backends.values()):
            if not refused.empty():
                raise refused.get_nowait()
            await asyncio.sleep(0.05)
        return await replay_files(house, views)
