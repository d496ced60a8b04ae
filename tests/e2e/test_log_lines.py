"""The log lines of a real server, and the ids on them and on its answers."""

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

from app.main import create_app
from app.observability import log
from app.settings import ServerSettings
from tests.conftest import LiveServer

SECRET = "wherefore art"


class Lines(logging.StreamHandler[io.StringIO]):
    """What would stand in the log as JSON."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.setFormatter(log.make_json_formatter())
        self.addFilter(log.Binder())

    def read(self, count: int, logger: str = "app.access") -> list[dict[str, Any]]:
        """So many lines of one logger, once they are there: an answer is read before it is logged."""
        deadline = time.monotonic() + 30
        while len(found := self._found(logger)) < count:
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
        assert len(found) == count
        return found

    def _found(self, logger: str) -> list[dict[str, Any]]:
        with self.lock or nullcontext():
            lines = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [line for line in lines if line["logger"] == logger]


@contextmanager
def logging_to(handler: Lines) -> Iterator[Lines]:
    """All lines from here on, of a server that is there already."""
    loggers = [logging.getLogger(name) for name in ("app", "uvicorn")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


@pytest.fixture
def lines(server: LiveServer) -> Iterator[Lines]:
    """What `server` logs."""
    with logging_to(Lines()) as handler:
        yield handler


def test_a_request_has_one_id_everywhere(server: LiveServer, lines: Lines) -> None:
    url = f"{server.url}/generate"
    with (
        httpx.Client() as client,
        connect_sse(
            client,
            "GET",
            url,
            params={"prompt": SECRET, "max_new_tokens": 30},
            headers={"X-Request-ID": "my-own.1"},
        ) as source,
    ):
        start, *_ = [event.json() for event in source.iter_sse()]
    assert source.response.headers["x-request-id"] == "my-own.1"
    made = httpx.get(f"{server.url}/nowhere", headers={"X-Request-ID": "x" * 100}).headers["x-request-id"]
    assert len(made) == 32
    httpx.get(f"{server.url}/health/live")
    streamed, refused = lines.read(2)
    assert streamed["request_id"] == "my-own.1"
    assert streamed["answer_id"] == start["id"]
    assert (streamed["method"], streamed["path"], streamed["route"]) == ("GET", "/generate", "/generate")
    assert (streamed["status"], streamed["characters"], streamed["client"]) == (200, 30, "127.0.0.1")
    assert streamed["duration"] >= streamed["first_character"] > 0
    assert (refused["request_id"], refused["status"], refused["route"]) == (made, 404, "other")


def test_what_fails_is_logged_with_its_request_and_cause(server: LiveServer, lines: Lines) -> None:
    def fail(*_: object) -> None:
        raise ValueError("the cause")

    server.engine.submit = fail  # type: ignore[method-assign,assignment]
    answer = httpx.post(f"{server.url}/generate", json={}, headers={"X-Request-ID": "broken-1"})
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "broken-1"
    assert "the cause" not in answer.text
    [access] = lines.read(1)
    [failure] = lines.read(1, "uvicorn.error")
    assert (access["status"], access["error"], access["request_id"]) == (500, "ValueError", "broken-1")
    assert failure["request_id"] == "broken-1"
    assert failure["exc_info"].startswith("Traceback")
    assert "ValueError: the cause" in failure["exc_info"]


@pytest.mark.parametrize("kept", [False, True])
def test_prompts_are_logged_only_if_the_settings_say_so(folder: Path, kept: bool) -> None:
    with (
        LiveServer(create_app(ServerSettings(checkpoint=folder, device="cpu", log_prompts=kept))) as live,
        logging_to(Lines()) as lines,
    ):
        fields: dict[str, Any] = {"prompt": SECRET, "max_new_tokens": 5}
        httpx.post(f"{live.url}/generate", json=fields)
        httpx.post(f"{live.url}/generate", json=fields | {"stream": False})
        httpx.get(f"{live.url}/generate", params=fields)
        httpx.get(f"{live.url}/generate", params={"prompt": f"{SECRET}\r\nñ"})
        httpx.post(f"{live.url}/score", json={"text": SECRET})
        httpx.post(f"{live.url}/generate", content=json.dumps(SECRET))
        access_lines = lines.read(6)  # here: the last answer may be read before its line is written
    assert [line.get("prompt") for line in access_lines] == [SECRET if kept else None] * 3 + [None] * 3
    if not kept:
        assert SECRET not in lines.stream.getvalue()


def test_a_process_logs_json_and_neither_queries_nor_keys(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "app",
        "--port=0",
        "--device=cpu",
        f"--checkpoint={folder}",
        "--log_format=json",
    ]
    environment = os.environ | {"SOLILOQUY_API_KEYS": "the-key"}
    read = list[str]()
    url = ""
    fields: dict[str, Any] = {"prompt": SECRET, "max_new_tokens": 5}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            for line in process.stderr or ():
                read.append(line)
                if found := re.search(r"running on (http://[0-9.:]+)", line):
                    url = found[1]
                    break
            for key in ("the-key", "no-key"):
                for path in ("/generate", "/nowhere%0d%0aforged"):
                    httpx.get(f"{url}{path}", params=fields, headers={"authorization": f"Bearer {key}"})
            process.send_signal(signal.SIGTERM)
            written, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    lines = [json.loads(line) for line in [*read, *errors.splitlines()]]
    assert [line["status"] for line in lines if line["logger"] == "app.access"] == [200, 404, 401, 401]
    assert all(line.keys() >= {"timestamp", "level", "logger", "message"} for line in lines)
    assert written == ""
    assert not re.search("wherefore|key", "".join([*read, errors]))
