"""`transom witness`: watch the logs of others, and cosign what grows."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from transom.cli import output
from transom.cli.output import exit_on_error
from transom.tlog.keys import open_key
from transom.tlog.notes import COSIGNATURE, Signer

witness = typer.Typer(
    help="Cosign the logs of others as they grow (c2sp.org/tlog-witness).", no_args_is_help=True
)

Folder = Annotated[
    Path, typer.Argument(file_okay=False, help="What the witness has: its key, and what it has seen.")
]
Name = Annotated[
    str | None,
    typer.Option(help="The witness's name, best its address without the scheme; for a new key only."),
]

_CONNECTIONS = 256
"""That are answered at once; more are told to come again, which bounds memory."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.add_typer(witness, name="witness")


@witness.command("key")
@exit_on_error
def witness_key(folder: Folder, name: Name = None) -> None:
    """Print the witness's public key, which is made where there is none; its line in a policy."""
    output.write(str(_signer(folder, name).verifier))


@witness.command("serve")
@exit_on_error
def witness_serve(
    folder: Folder,
    policy: Annotated[
        Path,
        typer.Option(
            exists=True, dir_okay=False, help="Which logs to follow: `log VKEY` (c2sp.org/tlog-policy)."
        ),
    ],
    name: Name = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8610,
) -> None:
    """Answer `POST /add-checkpoint` until interrupted; the policy is read again when it changes."""
    import structlog
    import uvicorn

    from transom.api.witness import create_witness
    from transom.cli.logs import configure_logs
    from transom.tlog.policy_file import PolicyFile
    from transom.tlog.witness import Witness

    configure_logs("info")
    log = structlog.get_logger()
    followed = PolicyFile(policy, lambda error: log.error("the policy cannot be read", reason=str(error)))
    signer = _signer(folder, name)
    with Witness(folder, signer, lambda: followed.latest().logs) as cosigner:
        log.info("witnessing", key=str(signer.verifier), logs=[key.name for key in followed.latest().logs])
        server = uvicorn.Server(
            uvicorn.Config(
                create_witness(cosigner),
                host=host,
                port=port,
                log_config=None,
                access_log=False,
                limit_concurrency=_CONNECTIONS,
                timeout_graceful_shutdown=5,
            )
        )
        # uvicorn raises the signal again once it has ended in order; that is status 0, and no violent death.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        server.run()


def _signer(folder: Path, name: str | None) -> Signer:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return open_key(folder / "witness.key", name, COSIGNATURE)
