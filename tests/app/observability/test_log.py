import asyncio
import json
import logging
import logging.config
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.observability import log
from app.settings import ServerSettings
from tests.conftest import process_put_back

TEXT = st.text(st.characters(), max_size=60)  # any character: line ends, escapes, lone surrogates


def record(message: str, error: Exception | None = None, **extra: object) -> logging.LogRecord:
    """As a logger makes it."""
    exc_info = None
    if error is not None:
        try:
            raise error
        except Exception:  # noqa: BLE001 - whatever it is
            exc_info = sys.exc_info()
    made = logging.getLogger("app.x").makeRecord("app.x", logging.INFO, "f", 1, "%s", (message,), exc_info)
    vars(made).update(extra)
    return made


@given(TEXT, TEXT, TEXT)
def test_no_text_makes_a_line_of_its_own(message: str, reason: str, prompt: str) -> None:
    made = record(message, ValueError(reason), request_id="a.1", prompt=prompt)
    first, *others = log.TextFormatter().format(made).split("\n")
    assert " INFO app.x: [a.1] " in first
    assert first.isprintable()
    assert "Traceback" in others[0]
    assert all(line.startswith("    ") and line.isprintable() for line in others)
    [line] = log.make_json_formatter().format(made).split("\n")
    assert line.isascii()
    content = json.loads(line)
    assert content["message"] == message
    assert content["prompt"] == prompt
    assert str(ValueError(reason)).removesuffix("\n") in content["exc_info"]


def test_lines_have_the_time_in_utc() -> None:
    made = record("x")
    made.created = 1_700_000_000.25
    made.msecs = 250
    assert log.TextFormatter().format(made) == "2023-11-14T22:13:20.250Z INFO app.x: x"
    content = json.loads(log.make_json_formatter().format(made))
    assert content == {
        "timestamp": "2023-11-14T22:13:20.250000+00:00",
        "level": "INFO",
        "logger": "app.x",
        "message": "x",
    }


@given(st.binary(max_size=80) | st.from_regex(rb"[A-Za-z0-9._-]{1,66}", fullmatch=True) | st.none())
def test_a_requests_id_is_its_own_if_it_is_sane(header: bytes | None) -> None:
    kept = log.request_id(header)
    allowed = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    if header and len(header) <= 64 and allowed.issuperset(header):
        assert kept.encode() == header
    else:
        assert len(kept) == 32
        assert kept != log.request_id(header)


async def test_ids_follow_a_task_and_its_threads_and_no_other() -> None:
    def logged() -> str | None:
        made = record("x")
        assert log.Binder().filter(made)
        return getattr(made, "request_id", None)

    async def one(name: str) -> list[str | None]:
        log.bind(request_id=name)
        await asyncio.sleep(0)
        return [logged(), await asyncio.to_thread(logged)]

    assert list(await asyncio.gather(one("a"), one("b"))) == [["a", "a"], ["b", "b"]]
    assert logged() is None


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_uvicorns_lines_have_our_form(log_format: str, capfd: pytest.CaptureFixture[str]) -> None:
    with process_put_back():
        logging.config.dictConfig(log.configuration(ServerSettings(log_format=log_format)))
        logging.getLogger("uvicorn.error").info("up", extra={"color_message": "\x1b[1mup\x1b[0m"})
        logging.getLogger("app.access").info("GET / 200")
    written, errors = capfd.readouterr()
    if log_format == "json":
        assert [json.loads(line)["message"] for line in errors.splitlines()] == ["up", "GET / 200"]
        assert "\\u001b" not in errors
        assert written == ""
    else:
        assert errors.endswith("Z INFO uvicorn.error: up\n")
        assert written.endswith("Z INFO app.access: GET / 200\n")


def test_lines_of_one_kind_are_counted_after_the_first_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that repeats wrote a line, or a traceback, each time, as fast as a client could provoke it."""
    written: list[str] = []
    repeats = log.Repeats()
    own = logging.getLogger("app.repeated")

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(record.getMessage())

    handler = Keep()
    handler.addFilter(repeats)
    own.addHandler(handler)
    monkeypatch.setattr(own, "propagate", False)
    for number in range(1000):
        own.warning("client %d", number)
        try:
            raise ValueError(number)
        except ValueError:
            own.exception(f"callback <{number}>")  # as asyncio does
    assert len(written) == 2 * log.MAX_ALIKE
    repeats.sweep()
    assert len(written) == 2 * log.MAX_ALIKE  # the period is not over
    monkeypatch.setattr(log, "REPEATS_PERIOD", 0.0)
    repeats.sweep()
    [first, second] = written[2 * log.MAX_ALIKE :]
    assert first == "990 more lines like this were left out: client %d"
    assert second.startswith("990 more lines like this were left out: ValueError at ")
    own.warning("client %d", 1)
    assert written[-1] == "client 1"


def test_many_kinds_of_lines_are_one_kind_and_answered_requests_all_have_a_line() -> None:
    repeats = log.Repeats()

    def passed(name: str, message: str, **extra: object) -> bool:
        made = logging.getLogger(name).makeRecord(name, logging.WARNING, "f", 1, message, (), None)
        vars(made).update(extra)
        return bool(repeats.filter(made))

    assert sum(passed("app.x", f"number {number}") for number in range(5000)) == log.MAX_KINDS + log.MAX_ALIKE
    assert all(passed("app.access", "GET", status=200) for _ in range(2000))
    assert sum(passed("app.access", "GET", status=429) for _ in range(2000)) == log.MAX_REFUSED
