"""Running the server: uvicorn, our logs, and an exit code that says how it ended."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import structlog
import uvicorn

from transom.app import create_app
from transom.cli.welcome import Welcome
from transom.config import Settings
from transom.errors import TransomError


def run(settings: Settings, *, welcome: bool = False, env_file: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: the server's.
        welcome: whether to show, once it is up, that it works.
        env_file: see `Welcome`.

    Raises:
        TransomError: a model could not be served, or the welcome failed; the server was ended for it.
    """
    configure_logs(settings.log_level)
    failures: list[TransomError] = []

    def end(failure: TransomError) -> None:
        failures.append(failure)
        server.should_exit = True

    app = create_app(settings, on_refusal=end)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=settings.shutdown_seconds,
        )
    )
    if welcome:
        Welcome(settings, env_file, on_failure=end).start()
    server.run()
    if failures:
        raise failures[0]


def configure_logs(level: str) -> None:
    """One line for each event, on stderr."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(
        level=max(number, logging.WARNING), format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
