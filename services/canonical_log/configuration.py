"""Sets logging up once for a process: structlog for us, the same form for libraries, and for what nobody caught."""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType
from typing import Any, TextIO

import msgspec
import structlog

from services.canonical_log.libraries import LibraryHandler
from services.canonical_log.processors import EventDict, keep_allowed, stamp
from services.clock import Clock, SystemClock


def configure(service: str, *, clock: Clock | None = None, stream: TextIO | None = None) -> None:
    """Log as this service from now on: JSON lines, or coloured ones on a terminal. Call it first in every process.

    stream: standard error unless said. Uvicorn must run with `log_config=None`, Faust with `logging_config` unset and
    `worker_redirect_stdouts=False`, or they put their own handlers in place of these.
    """
    out = sys.stderr if stream is None else stream
    time = SystemClock() if clock is None else clock
    render: Any = structlog.dev.ConsoleRenderer() if out.isatty() else _as_json
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, stamp(service, time), keep_allowed, render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    _route_libraries(LibraryHandler(structlog.get_logger(), time))
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def _as_json(_: Any, __: str, line: EventDict) -> str:
    """What `keep_allowed` has left is of types that msgspec writes; it does so in a tenth of json's time."""
    return msgspec.json.encode(line).decode()


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """The logger: `get_logger().info("batch_folded", partition=3, records=200)`, keys as in `allowed_keys`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def _route_libraries(handler: logging.Handler) -> None:
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in list(logging.root.manager.loggerDict):
        # Handlers that libraries installed for themselves would write past the allow-list.
        library = logging.getLogger(name)
        library.handlers = []
        library.propagate = True
    # Each request has its canonical line already.
    logging.getLogger("uvicorn.access").setLevel(logging.CRITICAL)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    get_logger().critical("uncaught_error", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
