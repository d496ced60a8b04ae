"""How flags and environment variables are read: a value is the text that was given."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import SecretStr
from pydantic_settings import CliPositionalArg

from model.cli import run, settings_config
from model.flags import DeviceFlag, DtypeFlag, ForeignFlag, ProgramSettings

FOREIGN = {
    "wandb_log": ForeignFlag("use --text", accepted=("False",)),
    "eval_iters": ForeignFlag("use --count"),
}
TEXTS = [
    "JULIET:\nO",
    "\n",
    "\r\n",
    "a\u2028b\u2029c\x85d\x0be",
    "",
    " ",
    "-",
    "--",
    "-x",
    "--count",
    "--count=3",
    "--no-such-flag",
    "-1",
    "a=b",
    "=",
    "null",
    "None",
    "true",
    "123",
    "1e3",
    "[1,2]",
    '{"a":1}',
    '"x"',
    "'",
    "a,b",
    "@file",
    "%s %(x)s {y}",
    "é日𝄞",
]


class Example(ProgramSettings):
    """A program with a setting of each kind."""

    model_config = settings_config("example", "SOLILOQUY_EXAMPLE_", env_file=".env")

    text: str = "default"
    """A text"""
    other: str | None = None
    """A text that may be left out"""
    secret: SecretStr | None = None
    """A text that is not shown"""
    count: int = 7
    """A number"""
    most_of_all: int = 7
    """A number whose name has several words"""
    top: int | None = 200
    """A number that may be left out"""
    share: float | None = 0.5
    """Another"""
    folder: Path = Path("folder")
    """A path"""
    choice: Literal["a", "b"] = "a"
    """One of two"""
    device: DeviceFlag = "auto"
    """A device"""
    dtype: DtypeFlag = "auto"
    """A number format"""


class Placed(ProgramSettings):
    """A program with a value by its place."""

    model_config = settings_config("placed", "SOLILOQUY_PLACED_")

    receipt: CliPositionalArg[Path]
    """A file"""
    count: int = 7
    """A number"""


class Listed(ProgramSettings):
    """A program with a value by its place, and as many more as there are."""

    model_config = settings_config("listed", "SOLILOQUY_LISTED_")

    name: CliPositionalArg[str]
    """A text"""
    files: CliPositionalArg[list[Path]]
    """Files"""
    count: int = 7
    """A number"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(*arguments: str) -> Example:
    seen: list[Example] = []
    assert run(Example, seen.append, arguments, FOREIGN) == 0
    return seen[0]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(Example, lambda _: None, arguments, FOREIGN) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize("name", ["text", "other", "secret"])
@pytest.mark.parametrize("value", TEXTS)
def test_a_text_is_what_was_given_in_both_forms_of_a_flag(name: str, value: str) -> None:
    """`--start=$'JULIET:\\nO'` was cut at the line break without a word, and `--start=null` was an empty prompt.

    Cause: pydantic-settings matches flags by `.`, which no line break is, and takes null for nothing; argparse
    takes a value that begins with dashes for a flag, and drops `--`.
    Fix: flags are split at their first `=`, or take the argument that follows.
    """
    for arguments in ([f"--{name}={value}"], [f"--{name}", value], ["--count=3", f"--{name}", value, "--top=4"]):
        given = getattr(read(*arguments), name)
        assert (given.get_secret_value() if isinstance(given, SecretStr) else given) == value


@pytest.mark.parametrize("value", [text for text in TEXTS if text])
def test_a_text_in_the_environment_is_what_was_given(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable is read as a flag is: as it stands."""
    monkeypatch.setenv("SOLILOQUY_EXAMPLE_TEXT", value)
    monkeypatch.setenv("SOLILOQUY_EXAMPLE_OTHER", value)
    assert read().text == value
    assert read().other == value


@pytest.mark.parametrize("blank", ["", " ", "\t"])
@pytest.mark.parametrize("from_file", [False, True])
def test_a_blank_variable_is_as_good_as_none(blank: str, from_file: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`SOLILOQUY_SLOTS=` was refused as no number, though a blank line is how a variable is left out in a file.

    Cause: a blank value was a value. Fix: it is none, but for texts, where it may be meant.
    """
    names = ["COUNT", "TOP", "SHARE", "FOLDER", "CHOICE", "DEVICE"]
    if from_file:
        Path(".env").write_text("".join(f"SOLILOQUY_EXAMPLE_{name}={blank}\n" for name in names), encoding="utf-8")
    else:
        for name in names:
            monkeypatch.setenv(f"SOLILOQUY_EXAMPLE_{name}", blank)
    assert read() == Example()
    monkeypatch.setenv("SOLILOQUY_EXAMPLE_TEXT", "")
    assert read().text == ""


def test_a_blank_variable_does_not_hide_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("SOLILOQUY_EXAMPLE_COUNT=5\n", encoding="utf-8")
    monkeypatch.setenv("SOLILOQUY_EXAMPLE_COUNT", "")
    assert read().count == 5


@pytest.mark.parametrize("nothing", ["None", "null", "none"])
def test_a_number_may_be_none(nothing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """nanoGPT's `--top_k=None` was refused: only null was nothing, and that for texts too."""
    assert read(f"--top={nothing}").top is None
    assert read("--share", nothing).share is None
    monkeypatch.setenv("SOLILOQUY_EXAMPLE_TOP", nothing)
    assert read().top is None


@pytest.mark.parametrize("flag", ["--most_of_all=3", "--most-of-all=3", "--most-of_all"])
def test_a_name_may_be_spelled_with_dashes(flag: str) -> None:
    arguments = [flag] if "=" in flag else [flag, "3"]
    assert read(*arguments).most_of_all == 3


@pytest.mark.parametrize("name", ["cpu", "cuda", "mps"])
def test_a_device_may_have_the_number_of_the_first(name: str) -> None:
    """nanoGPT's `--device=cuda:0` was refused, though cuda is that one."""
    assert read(f"--device={name}:0").device == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device=cuda:1"], "CUDA_VISIBLE_DEVICES=1"),
        (["--device=cpu:3"], "there is one cpu only"),
        (["--device=tpu"], "--device: Input should be 'auto', 'cpu', 'cuda' or 'mps', not 'tpu'"),
        (["--dtype=float16"], "float16 is not computed in here; use bfloat16"),
        (["--cuont=3"], "--cuont: there is no such flag; did you mean --count?"),
        (["--top-k"], "--top-k: there is no such flag"),
        (["--zzz\nzzz=3"], r"--zzz\nzzz: there is no such flag"),
        (["--count"], "--count: needs a value, --count=…"),
        (["--folder", "--count=3"], "--folder: needs a value, --folder=…; after it comes --count=3"),
        (["--count=None"], "--count: Input should be a valid integer"),
        (["--count="], "--count: Input should not be blank, not ''"),
        (["--folder="], "--folder: Input should not be blank"),
        (["--share=inf"], "--share: Input should be a finite number, not 'inf'"),
        (["--count=" + 1000 * "9" + "x"], "…"),
        (["config/train.py"], "config/train.py: a file of settings is Python code, which is not run here"),
        (["hello world"], "hello world: is not a flag; write --name=value"),
        (["--", "x"], "x: is not a flag"),
        (["--wandb_log=True"], "--wandb_log: use --text"),
        (["--wandb_log=True", "--eval_iters", "3"], "--wandb_log: use --text; --eval_iters: use --count"),
    ],
)
def test_what_is_no_flag_or_no_value_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names, and line breaks in them, and values as long as a file: one line that says what to do."""
    assert message in refused(capsys, *arguments)


def test_a_foreign_flag_that_asks_for_what_is_done_anyway_is_accepted() -> None:
    assert read("--wandb_log=False", "--count=3").count == 3


def test_values_come_by_their_place_too(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Placed] = []
    assert run(Placed, seen.append, ["--count=3", "a.json"]) == 0
    assert run(Placed, seen.append, ["--", "--a.json"]) == 0
    assert [one.receipt for one in seen] == [Path("a.json"), Path("--a.json")]
    assert run(Placed, seen.append, []) == 2
    assert "receipt is required" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_shown_wherever_it_is_asked_for(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(Example, lambda _: None, ["--count=3", flag])
    assert stopped.value.code == 0
    assert "A number (default: 7)" in capsys.readouterr().out


def test_a_list_by_its_place_takes_all_that_are_left(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Listed] = []
    assert run(Listed, seen.append, ["x", "a", "--count=3", "b c", "--", "--d"]) == 0
    assert seen[0].name == "x"
    assert seen[0].files == [Path("a"), Path("b c"), Path("--d")]
    assert seen[0].count == 3
    assert run(Listed, seen.append, ["x"]) == 2
    assert capsys.readouterr().err == "--files is required\n"
    assert run(Placed, lambda _: None, ["x", "y"]) == 2
    assert capsys.readouterr().err.startswith("y: is not a flag")
