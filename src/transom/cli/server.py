"""Running the server: uvicorn, our logs, and an exit code that says how it ended."""

from __future__ import annotations

import logging
import sys

import structlog
import uvicorn

from transom.app import create_app
from transom.config import Settings
from transom.errors import ModelRefused


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ModelRefused: a model could not be served; the server was ended for it.
    """
    configure_logs(settings.log_level)
    refusals: list[ModelRefused] = []

    def on_refusal(refusal: ModelRefused) -> None:
        refusals.append(refusal)
        server.should_exit = True

    app = create_app(settings, on_refusal=on_refusal)
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
    server.run()
    if refusals:
        raise refusals[0]


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
