"""What a server is started with: numbers, files and addresses that cannot be used are one line and exit code 2."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.server import lifecycle, listening
from app.settings import ServerSettings
from model.cli import run
from model.errors import InputError
from tests.conftest import process_put_back

NUMBERS = (
    *("threads", "slots", "queue_size", "buffer_characters", "send_timeout", "drain_seconds", "max_new_tokens"),
    *("streams_per_client", "request_timeout", "idle_timeout", "port"),
)


def start(folder: Path, *flags: str) -> int:
    """The exit code of a server that does not come up."""
    with process_put_back():
        return run(ServerSettings, lifecycle.serve, [f"--checkpoint={folder}", "--device=cpu", "--port=0", *flags])


def never(settings: ServerSettings) -> None:
    """In the place of the server, where none should start."""
    raise AssertionError(f"these settings were taken: {settings}")


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e308", str(2**63), str(-(2**63)), "9" * 5000, "x"])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_without_sense_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    """`--drain_seconds=1e10` ended in an OverflowError when the server was stopped, and `--threads=100000` in "Too
    many open files": numbers had no upper bound.
    """
    assert run(ServerSettings, never, [f"--{name}={value}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"--{name}: ")
    assert said.count("\n") == 1
    assert len(said) < 300


@pytest.mark.parametrize("rate", ["99999999999999999999/minute", "1/99999 years", "1e3/minute", "-1/s"])
def test_a_rate_without_sense_is_refused_by_name(capsys: pytest.CaptureFixture[str], rate: str) -> None:
    assert run(ServerSettings, never, [f"--rate_limit={rate}"]) == 2
    assert capsys.readouterr().err.startswith("--rate_limit: Input should be one rate above 0")


@pytest.fixture
def odd(tmp_path: Path) -> dict[str, Path]:
    """What is no file of keys: never ends, never begins, is not there, is too much."""
    pipe = tmp_path / "pipe"
    large = tmp_path / "large"
    binary = tmp_path / "binary"
    os.mkfifo(pipe)
    with large.open("wb") as file:
        file.truncate(1 << 40)
    binary.write_bytes(b"\xff\xfe\n")
    link = tmp_path / "link"
    link.symlink_to("/dev/zero")
    named = {"pipe": pipe, "large": large, "binary": binary, "folder": tmp_path, "link": link}
    return named | {"zero": Path("/dev/zero"), "null": Path("/dev/null"), "gone": tmp_path / "gone"}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("zero", "it is not a file"),
        ("null", "it is not a file"),
        ("link", "it is not a file"),
        ("pipe", "it is not a file"),
        ("folder", "it is not a file"),
        ("large", "bytes are more than"),
        ("binary", "not UTF-16 text"),
        ("gone", "No such file"),
    ],
)
def test_what_is_no_file_of_keys_is_refused_before_it_is_read(
    folder: Path, capsys: pytest.CaptureFixture[str], odd: dict[str, Path], kind: str, reason: str
) -> None:
    """`--api_keys_file=/dev/zero` grew to 5 GB: the file was read to its end, whatever it was."""
    assert start(folder, f"--api_keys_file={odd[kind]}") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"api_keys_file: {odd[kind]} cannot be read: ")
    assert reason in said
    assert said.count("\n") == 1


@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="a file of Linux")
def test_a_file_that_claims_to_be_empty_is_not_read_to_its_end(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files of /proc have no size; this one would have gigabytes."""
    assert start(folder, "--api_keys_file=/proc/self/pagemap") == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value"), [("api_keys", "null"), ("cors_origins", "null"), ("rate_limit", "null")]
)
def test_null_is_no_way_to_open_a_server(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    """`--cors_origins=null` switched CORS off and `--api_keys=null` let everybody in, both without a word: on the
    command line, null was the same as absent.
    """
    settings: list[ServerSettings] = []
    code = run(ServerSettings, settings.append, [f"--{name}={value}"])
    if name == "api_keys":
        assert settings[0].api_keys is not None
        assert settings[0].api_keys.get_secret_value() == "null"
    else:
        assert code == 2
        assert capsys.readouterr().err.startswith(f"--{name}: Input should be ")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port where another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("no-such-host.invalid", "host: 'no-such-host.invalid' is not an address that can be listened on"),
        ("203.0.113.77", "host: 203.0.113.77 is no address of this machine; 0.0.0.0 is every one"),
        ("fe80::1%no-such-interface", "host: 'fe80::1%no-such-interface' is not an address"),
        ("http://127.0.0.1", "host: 'http://127.0.0.1' is not an address"),
        ("127.0.0.1:8000", "host: '127.0.0.1:8000' is not an address"),
        ("x" * 300, "is not an address"),
    ],
)
def test_an_address_that_is_not_to_be_had_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], host: str, words: str
) -> None:
    """It was exit code 3 and seven lines, after the model had been loaded. Addresses are bound before that."""
    assert start(folder, f"--host={host}") == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_port_that_is_taken_is_one_line(taken: int, host: str) -> None:
    command = [sys.executable, "-m", "app", f"--port={taken}", f"--host={host}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"port: {taken} is taken on {host}: stop the program that listens there")
    assert done.stderr.count("\n") == 1


def test_of_two_servers_that_start_at_once_one_is_told_that_the_port_is_taken() -> None:
    """Both may bind the port while they load a model; only one can listen."""
    [first] = listening.bind("127.0.0.1", 0)
    port = first.getsockname()[1]
    second = listening.bind("127.0.0.1", port)
    try:
        listening.listen([first], "127.0.0.1", port)
        with pytest.raises(InputError, match=r"is taken on 127\.0\.0\.1"):
            listening.listen(second, "127.0.0.1", port)
    finally:
        listening.close([first, *second])


def test_a_port_for_administrators_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(InputError, match=r"80 may not be opened by this user: choose one from 1024 up"):
        listening.bind("127.0.0.1", 80)


def test_a_server_says_where_it_runs_and_what_had_no_effect(folder: Path) -> None:
    """In a pod beside a Service named soliloquy, with a variable that is misspelt and one that is blank."""
    variables = {
        "SOLILOQUY_PORT": "tcp://10.43.7.9:8000",
        "SOLILOQUY_SERVICE_HOST": "10.43.7.9",
        "SOLILOQUY_RATE_LIMITS": "60/minute",
        "SOLILOQUY_SLOTS": "",
    }
    command = [sys.executable, "-m", "app", f"--checkpoint={folder}", "--device=cpu", "--port=0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | variables) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if re.search(r"running on http://127\.0\.0\.1:[1-9]", line):
                process.send_signal(signal.SIGTERM)
        assert process.wait() in (0, -signal.SIGTERM)
    text = "".join(said)
    assert "SOLILOQUY_PORT=tcp://10.43.7.9:8000 is the address of a Kubernetes Service, not a port" in text
    assert "SOLILOQUY_RATE_LIMITS is not a setting and has no effect; did you mean SOLILOQUY_RATE_LIMIT?" in text
    assert "SERVICE_HOST" not in text
    assert "SLOTS" not in text
