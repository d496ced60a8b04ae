"""How every program here is started: typed settings from flags, and one line for what is wrong.

Owns exit codes: 0 done, 1 when the output's reader has gone (and when `model.verify` finds another text), 2 for bad
input and for a machine that fails (a full disk), 130 when interrupted. Knows nothing of what the programs do.
"""

import os
import sys
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict, SettingsError

from model.errors import SoliloquyError

MAX_SHOWN = 100  # characters of a value that is refused

Settings = TypeVar("Settings", bound=BaseSettings)


def settings_config(program: str, env_prefix: str, env_file: str | None = None) -> SettingsConfigDict:
    """Flags over environment over file over defaults, docstrings as help; for one program's settings class.

    What is blank is as good as absent, in any of them; but a class may name fields in `NEVER_BLANK`.
    """
    return SettingsConfigDict(
        env_prefix=env_prefix,
        env_file=env_file,
        env_ignore_empty=True,
        extra="ignore",
        use_attribute_docstrings=True,
        cli_prog_name=f"python -m {program}",
        cli_exit_on_error=False,
    )


def run(settings_class: type[Settings], main: Callable[[Settings], None], arguments: Sequence[str]) -> int:
    """Read the settings, call `main` with them, and return the exit code."""
    try:
        kept: Collection[str] = getattr(settings_class, "NEVER_BLANK", ())
        main(CliApp.run(settings_class, cli_args=without_blanks(arguments, kept)))
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


def without_blanks(arguments: Sequence[str], kept: Collection[str] = ()) -> list[str]:
    """The arguments without flags that are given nothing: `--slots=`, `--slots ""`; those in `kept` stay."""
    found: list[str] = []
    for argument in arguments:
        flag, given, value = argument.partition("=")
        if not argument and found and found[-1].startswith("--") and "=" not in found[-1]:
            flag = found.pop()
            if flag[2:] in kept:
                found.append(f"{flag}=")
        elif not (argument.startswith("--") and given and not value and flag[2:] not in kept):
            found.append(argument)
    return found


def _describe(error: dict[str, object]) -> str:
    location = error["loc"]
    name = ".".join(str(part) for part in location) if isinstance(location, tuple) else ""
    if error["type"] == "missing":
        return f"--{name} is required"
    given = repr(error["input"])
    if len(given) > MAX_SHOWN:
        given = f"{given[:MAX_SHOWN]}… ({len(given)} characters)"
    return f"--{name}: {error['msg']}, not {given}"
