"""How every program here is started: typed settings from flags, and one line for what is wrong.

Owns exit codes: 0 done, 1 when the output's reader has gone (and when `model.verify` finds another text), 2 for bad
input and for a machine that fails (a full disk), 130 when interrupted. Knows nothing of what the programs do.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict, SettingsError

from model.errors import SoliloquyError
from model.flags import NO_FOREIGN_FLAGS, ForeignFlag, asks_for_help, read_flags

SHOWN = 80  # characters of a value in a message
Settings = TypeVar("Settings", bound=BaseSettings)


def settings_config(program: str, env_prefix: str, env_file: str | None = None) -> SettingsConfigDict:
    """Flags over environment over file over defaults, docstrings as help; for one program's settings class."""
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

    Args:
        foreign_flags: flags of nanoGPT's that the program does not have, and what to answer to them.
    """
    try:
        if asks_for_help(arguments):
            CliApp.run(settings_class, cli_args=["--help"])  # exits
        main(settings_class(**read_flags(settings_class, arguments, foreign_flags)))
    except ValidationError as error:
        print(_one_line("; ".join(_describe(dict(item)) for item in error.errors())), file=sys.stderr)
        return 2
    except (SettingsError, SoliloquyError) as error:
        print(_one_line(str(error)), file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(_one_line(f"{error.filename or 'error'}: {error.strerror or error}"), file=sys.stderr)
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
    given = repr(error["input"])
    return f"--{name}: {error['msg']}, not {given if len(given) <= SHOWN else given[:SHOWN] + '…'}"


def _one_line(message: str) -> str:
    """The message with line breaks, and what a terminal might obey, written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
