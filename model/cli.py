"""How every program here is started: typed settings from flags, and one line for what is wrong.

Owns exit codes: 0 done, 1 when the output's reader has gone (and when `model.verify` finds another text), 2 for bad
input and for a machine that fails (a full disk), 130 when interrupted. Knows nothing of what the programs do.
"""

import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar

from pydantic import BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, CliApp, CliSettingsSource, SettingsConfigDict, SettingsError

from model.errors import DataError, SoliloquyError
from model.files import decode_text, text_encoding

Settings = TypeVar("Settings", bound=BaseSettings)
ESCAPES = {point: repr(chr(point))[1:-1] for point in (*range(0x20), 0x7F)}  # so that a message is one line


def check_path(value: Any) -> Any:
    """A path as a user means it: `~` is the home folder, and every path has a name, also that of this folder."""
    if not isinstance(value, str | Path):
        return value
    if value == "":
        raise PydanticCustomError("empty", "Input should name a file or folder (. is this one), or be left out")
    path = Path(os.path.expanduser(value))
    return Path(os.path.realpath(path)) if path.name in ("", "..") else path


SettingsPath = Annotated[Path, BeforeValidator(check_path)]


def settings_config(program: str, env_prefix: str, env_file: str | None = None) -> SettingsConfigDict:
    """Flags over environment over file over defaults, docstrings as help; for one program's settings class."""
    return SettingsConfigDict(
        env_prefix=env_prefix,
        env_file=env_file,
        extra="ignore",
        use_attribute_docstrings=True,
        cli_prog_name=f"python -m {program}",
        cli_exit_on_error=False,
    )


def run(settings_class: type[Settings], main: Callable[[Settings], None], arguments: Sequence[str]) -> int:
    """Read the settings, call `main` with them, and return the exit code.

    Characters that the terminal, or what the output goes to, cannot show are written as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        escape_unprintable(stream)
    try:
        try:
            main(read_settings(settings_class, arguments))
        finally:  # now, while what goes wrong can still be told; also after --help, which exits
            if sys.stdout is not None:
                sys.stdout.flush()
    except ValidationError as error:
        print("; ".join(_describe(dict(item)) for item in error.errors()), file=sys.stderr)
        return 2
    except (SettingsError, SoliloquyError) as error:
        print(str(error).removeprefix("error parsing CLI: ").translate(ESCAPES), file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output, such as head, has gone
        return 1
    except OSError as error:
        print(f"{error.filename or 'error'}: {error.strerror or error}".translate(ESCAPES), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    finally:
        for stream in (sys.stdout, sys.stderr):
            abandon_unwritable(stream)
    return 0


def read_settings(settings_class: type[Settings], arguments: Sequence[str]) -> Settings:
    """The settings by flags, environment and file.

    Raises:
        ValidationError, SettingsError: a value that cannot be used.
        DataError: the file is not text.
    """
    name = settings_class.model_config.get("env_file")
    path = Path(name) if isinstance(name, str) else None
    if path is not None and path.is_file():
        content = path.read_bytes()
        try:
            decode_text(content)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error
        settings_class.model_config["env_file_encoding"] = text_encoding(content)  # the only way past `CliApp.run`
    # where flags may be in capitals too, a value is cut off at its first line break
    source = CliSettingsSource[Settings](settings_class, case_sensitive=True)
    return CliApp.run(settings_class, cli_args=list(arguments), cli_settings_source=source)


def escape_unprintable(stream: TextIO | None) -> None:
    """Have a stream write escapes in the place of characters that its encoding lacks, where it would raise."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        stream.reconfigure(errors="backslashreplace")


def abandon_unwritable(stream: TextIO | None) -> None:
    """Lead a stream to nowhere if what it holds cannot be written: Python tries again as it ends, and says so."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _describe(error: dict[str, object]) -> str:
    location = error["loc"]
    name = ".".join(str(part) for part in location) if isinstance(location, tuple) else ""
    if error["type"] == "missing":
        return f"--{name} is required"
    return f"--{name}: {error['msg']}, not {error['input']!r}"
