import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from model.cli import run, settings_config
from model.errors import InputError


class Example(BaseSettings):
    """A program with one setting from each source."""

    model_config = settings_config("example", "SOLILOQUY_EXAMPLE_", env_file=".env")

    flag: str = "default"
    """One setting"""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    monkeypatch.chdir(tmp_path)
    return []


def test_flags_over_environment_over_file_over_defaults(seen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def main(settings: Example) -> None:
        seen.append(settings.flag)

    run(Example, main, [])
    Path(".env").write_text("SOLILOQUY_EXAMPLE_FLAG=file\nOTHER=1\n")
    run(Example, main, [])
    monkeypatch.setenv("SOLILOQUY_EXAMPLE_FLAG", "environment")
    run(Example, main, [])
    run(Example, main, ["--flag=flag"])
    assert seen == ["default", "file", "environment", "flag"]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("flag", "is wrong; use another"), 2, "flag: is wrong; use another\n"),
        (OSError(errno.ENOSPC, "No space left on device", "x/y"), 2, "x/y: No space left on device\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
    ],
)
def test_what_goes_wrong_is_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(settings: Example) -> None:
        raise error

    assert run(Example, main, []) == code
    assert capsys.readouterr().err == line


def test_a_reader_who_leaves_is_no_error() -> None:
    program = (
        "import sys; from pydantic_settings import BaseSettings; from model.cli import run\n"
        "sys.exit(run(BaseSettings, lambda settings: [print('x' * 100) for _ in range(10_000)], []))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(30) == 1


SAYING = """
import sys
from pydantic_settings import BaseSettings
from model.cli import run
from model.errors import InputError
def main(settings):
    print("text: a\\u00f1\\u2603\\U0001f600\\udcf1", flush=True)
    print("note: a\\u00f1\\u2603\\udcf1", file=sys.stderr)
    raise InputError("start", "never seen \\u65e5")
sys.exit(run(BaseSettings, main, []))
"""


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"PYTHONIOENCODING": "utf-8"}, b"a\xc3\xb1\xe2\x98\x83\xf0\x9f\x98\x80\\udcf1"),
        ({"PYTHONIOENCODING": "cp1252"}, b"a\xf1\\u2603\\U0001f600\\udcf1"),
        ({"PYTHONIOENCODING": "latin-1"}, b"a\xf1\\u2603\\U0001f600\\udcf1"),
        ({"PYTHONIOENCODING": "ascii:strict"}, b"a\\xf1\\u2603\\U0001f600\\udcf1"),
        ({"PYTHONIOENCODING": "ascii:replace"}, b"a????"),  # whoever says what they want has it
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, b"a\\xf1\\u2603\\U0001f600\\udcf1"),
        ({"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, b"a\\xf1\\u2603\\U0001f600\\udcf1"),
        ({"PYTHONUTF8": "1"}, b"a\xc3\xb1\xe2\x98\x83\xf0\x9f\x98\x80\\udcf1"),
    ],
)
def test_no_character_ends_a_program(environment: dict[str, str], text: bytes) -> None:
    """Where the output was not UTF-8 (a C locale, Windows, a redirect there), `train` died at its first sample:
    streams raised for what their encoding lacks. Now whatever `run` starts writes it as an escape.
    """
    free = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LC_", "LANG"))}
    done = subprocess.run([sys.executable, "-c", SAYING], capture_output=True, check=False, env=free | environment)
    assert done.returncode == 2
    assert done.stdout.rstrip() == b"text: " + text
    assert done.stderr.startswith(b"note: a")
    assert done.stderr.splitlines()[1].startswith(b"start: never seen ")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_an_environment_file_is_read_as_its_byte_order_mark_says(
    encoding: str, line_end: str, seen: list[str]
) -> None:
    """A `.env` that PowerShell had written in UTF-16 ended in a traceback: it was read as UTF-8, whatever it is."""
    Path(".env").write_bytes(f"# comment{line_end}SOLILOQUY_EXAMPLE_FLAG=ñ{line_end}".encode(encoding))
    assert run(Example, lambda settings: seen.append(settings.flag), []) == 0
    assert seen == ["ñ"]


def test_an_environment_file_that_is_no_text_is_refused(
    seen: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(".env").write_bytes(b"SOLILOQUY_EXAMPLE_FLAG=espa\xf1ol\n")
    assert run(Example, lambda settings: seen.append(settings.flag), []) == 2
    error = capsys.readouterr().err
    assert error == ".env: not UTF-8 text (byte 0xf1 at position 27); save the file as UTF-8\n"
    assert not seen
