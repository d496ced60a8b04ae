import errno
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from model.cli import run, settings_config, without_blanks
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


@pytest.mark.parametrize("flags", [["--flag="], ["--flag", ""], ["--flag=", "--flag="]])
def test_what_is_blank_is_as_good_as_absent(
    seen: list[str], monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    """A variable that a file of settings leaves blank was refused as no number, no path, no choice."""
    monkeypatch.setenv("SOLILOQUY_EXAMPLE_FLAG", "")
    Path(".env").write_text("SOLILOQUY_EXAMPLE_FLAG=\n")

    def main(settings: Example) -> None:
        seen.append(settings.flag)

    assert run(Example, main, flags) == 0
    assert run(Example, main, []) == 0
    assert seen == ["default", "default"]
    assert set(without_blanks(flags, kept=["flag"])) == {"--flag="}


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
