"""Log lines: one line of text, or one JSON object, for each event. Owns their format and the ids that they carry.

No text from a client can begin or end a line. Knows nothing of requests but the ids that are bound to them.
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from app.settings import ServerSettings

MAX_ALIKE = 10  # lines of one kind in a period
MAX_REFUSED = 600  # access lines of refused requests in a period, of each status
MAX_KINDS = 200  # kinds told apart in a period; lines of any others count as one kind
REPEATS_PERIOD = 60.0  # seconds
MAX_KIND_LENGTH = 100  # characters at the beginning of a message that decide its kind
TEXT_FIELDS = (
    "duration",
    "client",
    "characters",
    "first_character",
    "cancelled",
    "slow",
    "reason",
    "error",
    "prompt",
)
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
logger = logging.getLogger(__name__)
_bound: ContextVar[Mapping[str, str] | None] = ContextVar("bound", default=None)


def bind(**ids: str) -> None:
    """Put these ids on every line that is logged from here on in this task, and in threads that work for it."""
    _bound.set(ids)


def bound() -> Mapping[str, str]:
    """The ids that lines logged here carry."""
    return _bound.get() or {}


def request_id(header: bytes | None) -> str:
    """The id that a client gave its request, if it is short and of plain characters; else a new one."""
    if header is not None and REQUEST_ID.fullmatch(header):
        return header.decode()
    return uuid.uuid4().hex


def configuration(settings: ServerSettings, repeats: "Repeats | None" = None) -> dict[str, Any]:
    """The configuration for `logging.config.dictConfig`.

    As text, access lines go to the standard output and all others to the standard error, as with uvicorn; as JSON,
    all lines go to the standard error.
    """
    access = "stderr" if settings.log_format == "json" else "stdout"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"text": {"()": TextFormatter}, "json": {"()": make_json_formatter}},
        "filters": {"bound": {"()": Binder}, "repeats": {"()": lambda: repeats or Repeats()}},
        "handlers": {
            name: {
                "class": "logging.StreamHandler",
                "stream": f"ext://sys.{name}",
                "formatter": settings.log_format,
                "filters": ["bound", "repeats"],
            }
            for name in ("stdout", "stderr")
        },
        "root": {"level": "INFO", "handlers": ["stderr"]},
        "loggers": {
            "app.access": {"handlers": [access], "propagate": False},
            "uvicorn": {"handlers": [], "propagate": True},
        },
    }


class Binder(logging.Filter):
    """Gives each record the ids that are bound where it was logged."""

    def filter(self, record: logging.LogRecord) -> bool:
        """True: all records pass."""
        vars(record).update(bound())
        return True


class Repeats(logging.Filter):
    """Lets a few lines of each kind pass in a period and counts the others; `sweep` logs how many were left out.

    Two lines are of one kind if they have the same logger and level, and the same message before its arguments are
    put in, or an exception of the same type raised at the same line of code. Access lines are of one kind if they
    have the same status; those of requests that were not refused all pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[tuple[object, ...], int] = {}
        self._began = time.monotonic()

    def filter(self, record: logging.LogRecord) -> bool:
        """True if the line is to be written."""
        if vars(record).get("is_summary"):
            return True
        status = vars(record).get("status", 0) if record.name == "app.access" else None
        if status is not None and status < 400:
            return True
        kind = kind_of(record, status)
        if status is None and kind not in self._counts and len(self._counts) >= MAX_KINDS:
            kind = ("", logging.WARNING, "lines of many kinds")
        count = self._counts.get(kind, 0) + 1
        self._counts[kind] = count
        return count <= (MAX_ALIKE if status is None else MAX_REFUSED)

    def sweep(self) -> None:
        """Begin the next period if this one has passed, and log what was left out; called ten times a second."""
        now = time.monotonic()
        if now - self._began < REPEATS_PERIOD:
            return
        counts = self._counts
        self._counts = {}
        self._began = now
        for (name, level, *what), count in counts.items():
            limit = MAX_REFUSED if name == "app.access" else MAX_ALIKE
            if count > limit:
                logging.getLogger(str(name)).log(
                    int(str(level)),
                    "%d more lines like this were left out: %s",
                    count - limit,
                    " ".join(str(part) for part in what),
                    extra={"is_summary": True},
                )


def kind_of(record: logging.LogRecord, status: int | None) -> tuple[object, ...]:
    """Logger, level, and what else makes two lines alike; `status` is that of an access line."""
    if status is not None:
        return record.name, record.levelno, "refused with", status
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return record.name, record.levelno, str(record.msg).strip().partition("\n")[0][:MAX_KIND_LENGTH]
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    line = "nowhere" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return record.name, record.levelno, type(error).__name__, "at", line


class TextFormatter(logging.Formatter):
    """Formats time, level, logger, request and message as one line; the lines of a traceback follow, indented."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        own = vars(record)
        request = f"[{own['request_id']}] " if "request_id" in own else ""
        message = record.getMessage() + "".join(f" {name}={own[name]}" for name in TEXT_FIELDS if name in own)
        lines = [f"{self.formatTime(record)} {record.levelname} {record.name}: {request}{printable(message)}"]
        if record.exc_info:
            lines += [f"    {printable(line)}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(lines)


def make_json_formatter() -> logging.Formatter:
    """A formatter that makes one JSON object a line, of ASCII; a traceback is its `exc_info`."""
    return JsonFormatter(
        "%(levelname)s %(name)s %(message)s",
        rename_fields={"levelname": "level", "name": "logger"},
        reserved_attrs=[*RESERVED_ATTRS, "color_message"],
        timestamp=True,
    )


def printable(text: str) -> str:
    """The text, with line ends and all other characters that cannot be seen escaped as in Python."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def log_failure(task: asyncio.Task[Any]) -> None:
    """Log the error that ended a task that nobody awaits; for `Task.add_done_callback`."""
    if task.cancelled():
        return
    error = task.exception()
    if error is not None:
        logger.error("a task failed", exc_info=error)
