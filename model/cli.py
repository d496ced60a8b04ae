"""How every program is started: typed settings from flags, and one line for an error.

Owns exit codes: 0 done, 1 when nobody reads the output any more (and when `model.verify` finds another text), 2 for
bad input and for a failing machine (such as a full disk), 130 when interrupted. Knows nothing of what the programs
do.
"""

import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar

from pydantic import BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict, SettingsError

from model.atomic_files import decode_text, read_bounded, text_encoding
from model.errors import DataError, SoliloquyError
from model.flags import NO_FOREIGN_FLAGS, ForeignFlag, asks_for_help, read_flags

MAX_SHOWN_VALUE = 100  # of a value in a message
MAX_ENV_BYTES = 1 << 20  # of a file of variables
CONSEQUENTIAL_ERROR = "default_factory_not_called"  # pydantic's, of a default that depends on an invalid value

Settings = TypeVar("Settings", bound=BaseSettings)


def check_path(value: Any) -> Any:
    """A path with `~` expanded, and resolved where it would have no name (such as `.`)."""
    if not isinstance(value, str | Path):
        return value
    if value == "":
        raise PydanticCustomError("empty", "Input should name a file or folder (. is this one), or be left out")
    path = Path(os.path.expanduser(value))
    return Path(os.path.realpath(path)) if path.name in ("", "..") else path


SettingsPath = Annotated[Path, BeforeValidator(check_path)]


def settings_config(program: str, env_prefix: str, env_file: str | None = None) -> SettingsConfigDict:
    """The configuration of one program's settings class, with attribute docstrings as help."""
    return SettingsConfigDict(
        env_prefix=env_prefix,
        env_file=env_file,
        extra="ignore",
        use_attribute_docstrings=True,
        cli_prog_name=f"python -m {program}",
        allow_inf_nan=False,  # no program computes with these, and JSON cannot record them
    )


def run(
    settings_class: type[Settings],
    main: Callable[[Settings], None],
    arguments: Sequence[str],
    foreign_flags: Mapping[str, ForeignFlag] = NO_FOREIGN_FLAGS,
) -> int:
    """Read the settings, call `main` with them, and return the exit code.

    Characters that the output's encoding lacks are written as escapes.

    Args:
        foreign_flags: flags of nanoGPT's that the program does not have.
    """
    for stream in (sys.stdout, sys.stderr):
        escape_unprintable(stream)
    try:
        try:
            if asks_for_help(arguments):
                CliApp.run(settings_class, cli_args=["--help"])  # exits
            main(read_settings(settings_class, arguments, foreign_flags))
        finally:  # inside the outer `try`, so that an error of writing is reported; also after --help, which exits
            if sys.stdout is not None:
                sys.stdout.flush()
    except ValidationError as error:
        causes = [dict(item) for item in error.errors() if item["type"] != CONSEQUENTIAL_ERROR]
        print(_one_line("; ".join(map(_describe, causes))), file=sys.stderr)
        return 2
    except (SettingsError, SoliloquyError) as error:
        print(_one_line(str(error)), file=sys.stderr)
        return 2
    except BrokenPipeError:  # the program that read the output, such as head, has ended
        return 1
    except OSError as error:
        print(_one_line(f"{error.filename or 'error'}: {error.strerror or error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    finally:
        for stream in (sys.stdout, sys.stderr):
            abandon_unwritable(stream)
    return 0


def read_settings(
    settings_class: type[Settings],
    arguments: Sequence[str],
    foreign_flags: Mapping[str, ForeignFlag] = NO_FOREIGN_FLAGS,
) -> Settings:
    """The settings by flags, environment and file.

    Raises:
        ValidationError, SettingsError, InputError: a value that cannot be used.
        DataError: the file is not text.
    """
    flags = read_flags(settings_class, arguments, foreign_flags)
    name = settings_class.model_config.get("env_file")
    encoding = env_file_encoding(Path(name)) if isinstance(name, str) else None
    return settings_class(_env_file_encoding=encoding, **flags)


def env_file_encoding(path: Path) -> str | None:
    """The encoding of a file of variables; None if there is no such file.

    Raises:
        DataError: it is not text.
    """
    if not path.is_file():
        return None
    content = read_bounded(path, MAX_ENV_BYTES)
    try:
        decode_text(content)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return text_encoding(content)


def escape_unprintable(stream: TextIO | None) -> None:
    """Let a stream write escapes for characters that its encoding lacks, instead of raising."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        stream.reconfigure(errors="backslashreplace")


def abandon_unwritable(stream: TextIO | None) -> None:
    """Redirect a stream to the null device if its buffer cannot be written.

    Otherwise Python would try again when it exits, and print the error.
    """
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _describe(error: dict[str, object]) -> str:
    """One of pydantic's errors in words."""
    location = error["loc"]
    name = ".".join(str(part) for part in location) if isinstance(location, tuple) else ""
    if error["type"] == "missing":
        return f"--{name} is required"
    given = repr(error["input"])
    if len(given) > MAX_SHOWN_VALUE:
        given = f"{given[:MAX_SHOWN_VALUE]}… ({len(given)} characters)"
    return f"--{name}: {error['msg']}, not {given}"


def _one_line(message: str) -> str:
    """The message with line breaks and control characters written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
