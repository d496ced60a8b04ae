"""How every program here is started: typed settings from flags, and one line for what is wrong.

Owns exit codes: 0 done, 1 when the output's reader has gone (and when `model.verify` finds another text), 2 for bad
input and for a machine that fails (a full disk), 130 when interrupted. Knows nothing of what the programs do.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict, SettingsError

from model.errors import SoliloquyError

Settings = TypeVar("Settings", bound=BaseSettings)


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
    """Read the settings, call `main` with them, and return the exit code."""
    try:
        main(CliApp.run(settings_class, cli_args=list(arguments)))
    except ValidationError as error:
        print("; ".join(_describe(dict(item)) for item in error.errors()), file=sys.stderr)
        return 2
    except (SettingsError, SoliloquyError) as error:
        print(str(error).removeprefix("error parsing CLI: "), file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"{error.filename or 'error'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return 0


def _describe(error: dict[str, object]) -> str:
    location = error["loc"]
    name = ".".join(str(part) for part in location) if isinstance(location, tuple) else ""
    if error["type"] == "missing":
        return f"--{name} is required"
    return f"--{name}: {error['msg']}, not {error['input']!r}"
