"""The server as a process: started, asked, told to stop, killed, refused."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from httpx_sse import connect_sse

from app.server.lifecycle import serve
from app.settings import ServerSettings
from model.cli import run
from tests.conftest import process_put_back

ENDLESS = {"max_new_tokens": 100_000}


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`python -m app` on a free port, once it listens; killed at the end."""
    command = [sys.executable, "-m", "app", "--port=0", "--device=cpu", f"--checkpoint={folder}", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    reading: threading.Thread | None = None
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"running on (http://\S+)", line):
                reading = threading.Thread(target=process.stderr.read)  # a full pipe would stop it
                reading.start()
                yield process, found[1]
                return
        pytest.fail("the server ended before it listened")
    finally:
        process.kill()
        if reading is not None:
            reading.join()
        process.communicate()


def test_sigterm_finishes_what_was_begun_and_exits_cleanly(folder: Path) -> None:
    with serving(folder) as (process, url), httpx.Client(timeout=30) as client:
        with connect_sse(client, "POST", f"{url}/generate", json={"max_new_tokens": 3000}) as source:
            events = source.iter_sse()
            assert next(events).event == "start"
            process.send_signal(signal.SIGTERM)
            names = [event.event for event in events]
        assert names[-1] == "done"
        assert process.wait(30) in (0, -signal.SIGTERM)


def test_a_drain_that_is_over_says_so_and_exits(folder: Path) -> None:
    with serving(folder, "--drain_seconds=0") as (process, url), httpx.Client(timeout=30) as client:
        with connect_sse(client, "POST", f"{url}/generate", json=ENDLESS) as source:
            events = source.iter_sse()
            assert next(events).event == "start"
            process.send_signal(signal.SIGTERM)
            last = list(events)[-1]
        assert last.event == "error"
        assert last.json()["status"] == 503
        assert process.wait(30) in (0, -signal.SIGTERM)


def test_asked_to_stop_again_it_ends_what_is_being_written(folder: Path) -> None:
    """Tasks of running streams were cancelled: readers heard nothing, and the log had a traceback for each."""
    with serving(folder, "--drain_seconds=600") as (process, url), httpx.Client(timeout=30) as client:
        with connect_sse(client, "POST", f"{url}/generate", json=ENDLESS) as source:
            events = source.iter_sse()
            assert next(events).event == "start"
            process.send_signal(signal.SIGINT)
            assert any(httpx.get(f"{url}/health/ready").status_code == 503 for _ in range(1000))
            process.send_signal(signal.SIGINT)
            last = list(events)[-1]
        assert last.event == "error"
        assert last.json()["status"] == 503
        assert process.wait(30) == 130


def test_a_killed_server_starts_again_with_the_same_text(folder: Path) -> None:
    fields = {"seed": 11, "max_new_tokens": 80, "stream": False}
    texts = []
    for _ in range(2):
        with serving(folder) as (process, url):
            texts.append(httpx.post(f"{url}/generate", json=fields).json()["samples"][0]["text"])
            process.kill()
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        (["--checkpoint=nowhere"], {}, "nowhere: no such checkpoint folder"),
        ([], {"SOLILOQUY_CHECKPOINT": "from-environment"}, "from-environment: no such checkpoint folder"),
        (["--checkpoint=flag"], {"SOLILOQUY_CHECKPOINT": "environment"}, "flag: no such checkpoint folder"),
        (["--port=99999"], {}, "--port: Input should be less than or equal to 65535"),
        (["--prot=1"], {}, "--prot: there is no such flag; did you mean --port?"),
        ([], {"SOLILOQUY_SLOTS": "many"}, "slots: Input should be a valid integer"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_exit_code_2(
    flags: list[str],
    environment: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with process_put_back():
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert run(ServerSettings, serve, flags) == 2
    written = capfd.readouterr().err
    assert message in written
    assert written.count("\n") == 1


def test_a_process_that_cannot_serve_ends_with_one_line_and_exit_code_2() -> None:
    command = [sys.executable, "-m", "app", "--checkpoint=nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "nowhere: no such checkpoint folder\n"


def test_the_bundled_model_is_what_a_fresh_clone_serves() -> None:
    root = Path(__file__).parent.parent.parent
    with serving(root / "checkpoints" / "shakespeare-char") as (_, url):
        card = httpx.get(f"{url}/info").json()
        assert card["vocabulary_size"] == 65
        assert card["val_loss"] <= 1.50
        fields = {"prompt": "ROMEO:", "seed": 1, "max_new_tokens": 600, "stream": False}
        [sample] = httpx.post(f"{url}/generate", json=fields, timeout=60).json()["samples"]
        assert re.search(r"\n\n[A-Z][A-Za-z ]+:\n", sample["text"])  # another speaker takes the word
