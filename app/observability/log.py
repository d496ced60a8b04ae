"""Log lines: one line to read, or one JSON object, for each event. Owns their form and the ids that they carry.

No text of others can make a line of its own, or end one. Knows nothing of requests but what is bound to them.
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
MAX_KINDS = 200  # beyond that, lines count as one kind
PERIOD = 60.0  # seconds
MAX_KIND = 100  # characters of a message that tell what kind it is
TOLD = ("duration", "client", "characters", "first_character", "cancelled", "slow", "reason", "error", "prompt")
SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
logger = logging.getLogger(__name__)
_bound: ContextVar[Mapping[str, str] | None] = ContextVar("bound", default=None)


def bind(**ids: str) -> None:
    """Put these ids on every line that is logged from here on in this task, and in threads that work for it."""
    _bound.set(ids)


def bound() -> Mapping[str, str]:
    """The ids that lines logged here carry."""
    return _bound.get() or {}


def request_id(header: bytes | None) -> str:
    """The id that a client gave its request, if it is a sane one; else a new one."""
    if header is not None and SANE_ID.fullmatch(header):
        return header.decode()
    return uuid.uuid4().hex


def configuration(settings: ServerSettings, repeats: "Repeats | None" = None) -> dict[str, Any]:
    """For `logging.config.dictConfig`. As uvicorn does, it writes lines to read of what was asked to the standard
    output, all others to the standard error; JSON goes to the latter."""
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
        """Lets all records pass."""
        vars(record).update(bound())
        return True


class Repeats(logging.Filter):
    """Lets a few lines of each kind pass in a period, and counts the others; `sweep` tells how many there were.

    Of a kind are lines of one logger and level with the same message before its arguments are put in, or with an
    exception of the same type from the same place; and access lines of one status. Those of answered requests all
    pass: how many there are is for who runs the server to know.
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
        """Call it now and then: once a period has passed, it begins the next, and says what was left out."""
        now = time.monotonic()
        if now - self._began < PERIOD:
            return
        counts = self._counts
        self._counts = {}
        self._began = now
        for (name, level, *what), count in counts.items():
            most = MAX_REFUSED if name == "app.access" else MAX_ALIKE
            if count > most:
                words = " ".join(str(one) for one in what)
                told = logging.getLogger(str(name))
                told.log(
                    int(str(level)), "%d more lines like this were left out: %s", count - most, words,
                    extra={"is_summary": True},
                )  # fmt: skip


def kind_of(record: logging.LogRecord, status: int | None) -> tuple[object, ...]:
    """Logger, level, and what else makes two lines alike."""
    if status is not None:
        return record.name, record.levelno, "refused with", status
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return record.name, record.levelno, str(record.msg).strip().partition("\n")[0][:MAX_KIND]
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "nowhere" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return record.name, record.levelno, type(error).__name__, "at", place


class TextFormatter(logging.Formatter):
    """Time, level, logger, request and message on one line; the lines of a traceback follow, indented."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        own = vars(record)
        request = f"[{own['request_id']}] " if "request_id" in own else ""
        message = record.getMessage() + "".join(f" {name}={own[name]}" for name in TOLD if name in own)
        lines = [f"{self.formatTime(record)} {record.levelname} {record.name}: {request}{printable(message)}"]
        if record.exc_info:
            lines += [f"    {printable(line)}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(lines)


def make_json_formatter() -> logging.Formatter:
    """One JSON object a line, of ASCII; a traceback is its `exc_info`."""
    return JsonFormatter(
        "%(levelname)s %(name)s %(message)s",
        rename_fields={"levelname": "level", "name": "logger"},
        reserved_attrs=[*RESERVED_ATTRS, "color_message"],
        timestamp=True,
    )


def printable(text: str) -> str:
    """The text, with escapes in the place of line ends and of all else that is not to be seen."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def tell_failure(task: asyncio.Task[Any]) -> None:
    """Log what ended a task that nobody waits for."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("a task failed", exc_info=error)
