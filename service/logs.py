"""Logs to standard error: JSON lines for machines, text for a terminal; those of the libraries likewise."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog

from service.settings import Settings

# What these libraries say on lower levels is of no use to an operator; what matters of it, the service says itself.
_LIBRARY_LEVELS = {"aiokafka": logging.CRITICAL, "faststream": logging.ERROR, "uvicorn": logging.WARNING}


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Set logging up for the whole process."""
    target = stream or sys.stderr
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    text = settings.log_format == "text" or (settings.log_format == "auto" and target.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if text
        # Traces without the values of variables, which would show what customers do, and fill the disk.
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
    )
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, library_level in _LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(max(level, library_level) if level > logging.DEBUG else level)
