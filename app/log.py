"""Log lines: one line to read, or one JSON object, for each event. Owns their form and the ids that they carry.

No text of others can make a line of its own, or end one. Knows nothing of requests but what is bound to them.
"""

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

TOLD = ("duration", "client", "characters", "first_character", "cancelled", "slow", "reason", "error", "prompt")
SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
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


def configuration(settings: ServerSettings) -> dict[str, Any]:
    """For `logging.config.dictConfig`. As uvicorn does, it writes lines to read of what was asked to the standard
    output, all others to the standard error; JSON goes to the latter."""
    access = "stderr" if settings.log_format == "json" else "stdout"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"text": {"()": TextFormatter}, "json": {"()": make_json_formatter}},
        "filters": {"bound": {"()": Binder}},
        "handlers": {
            name: {
                "class": "logging.StreamHandler",
                "stream": f"ext://sys.{name}",
                "formatter": settings.log_format,
                "filters": ["bound"],
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
