"""The daemon's own log: structlog to stderr, as JSON lines or for a terminal, secrets cut out.

Any thread may log. Lines of other libraries (asyncio, grpc) go through the same pipe, so that nothing is printed in
a second format.
"""

import logging
import sys
from typing import TextIO

import structlog
from structlog.stdlib import BoundLogger
from structlog.typing import Processor

from esperd.config.settings import LogSettings
from esperd.leyline.redact import redact

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_log(settings: LogSettings, stream: TextIO = sys.stderr) -> BoundLogger:
    """Set up the process's log; the return value is the daemon's logger."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Before redaction, which sees text and leaves it alone, but would not know a traceback's parts.
        structlog.processors.format_exc_info,
        redact,
    ]
    level = LEVELS[settings.level]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_last_processors(settings.format, stream),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    logger: BoundLogger = structlog.stdlib.get_logger("esperd")
    return logger


def _last_processors(format_name: str, stream: TextIO) -> list[Processor]:
    on_terminal = stream.isatty()
    if format_name == "json" or (format_name == "auto" and not on_terminal):
        return [structlog.processors.JSONRenderer(sort_keys=True)]
    return [structlog.dev.ConsoleRenderer(colors=on_terminal)]
