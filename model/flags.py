"""Reads a program's settings from the command line and the environment.

A value is taken as it was given, whatever characters it has. The parser of pydantic-settings writes the help but is
not used to read flags: it cuts a value at a line break and reads null as None, and argparse, on which it is built,
takes a text that begins with dashes for a flag.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, cast, get_args, get_origin

from pydantic import BeforeValidator, SecretStr, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, CliPositionalArg, PydanticBaseSettingsSource

from model.device import DeviceName, DtypeName, GenerationDtypeName
from model.errors import InputError

HELP_FLAGS = ("--help", "-h")
NONE_WORDS = ("None", "none", "null")  # for a number that may be left out; nanoGPT writes --top_k=None
TEXT_TYPES = (str, SecretStr)
POSITIONAL = get_args(CliPositionalArg)[1]
DEVICE_WITH_INDEX = re.compile(r"(cpu|cuda|mps):([0-9]+)")
MAX_SHOWN_FLAG = 80  # characters of a value in a message


@dataclass(frozen=True)
class ForeignFlag:
    """A flag of nanoGPT's that has another name here, or no equivalent.

    Attributes:
        answer: what to use instead; the error message for it.
        accepted: values that mean what is done anyway: with these the flag is ignored.
    """

    answer: str
    accepted: tuple[str, ...] = ()


NO_FOREIGN_FLAGS: Mapping[str, ForeignFlag] = {}


def read_flags(
    settings_class: type[BaseSettings],
    arguments: Sequence[str],
    foreign: Mapping[str, ForeignFlag] = NO_FOREIGN_FLAGS,
) -> dict[str, Any]:
    """The values given as `--name=value`, as `--name value` and by position; of a name given twice, the last one.

    Raises:
        InputError: a flag that does not exist, or one of nanoGPT's with a value that is not accepted.
    """
    fields = settings_class.model_fields
    positional_names = [name for name, field in fields.items() if POSITIONAL in field.metadata]
    values: dict[str, Any] = {}
    positional_values: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            positional_values += rest
            break
        if not argument.startswith("--"):
            positional_values.append(argument)
            continue
        spelled, equals, value = argument.removeprefix("--").partition("=")
        underscored = spelled.replace("-", "_")  # as most other programs spell their flags
        name = underscored if underscored in fields or underscored in foreign else spelled
        if name in positional_names or (name not in fields and name not in foreign):
            raise InputError(f"--{name:.{MAX_SHOWN_FLAG}}", _unknown(name, [*fields, *foreign]))
        values[name] = value if equals else _next_value(name, fields.get(name), rest)
    _drop_foreign(values, foreign)
    return values | _read_positional({name: fields[name] for name in positional_names}, positional_values)


def _read_positional(fields: Mapping[str, FieldInfo], given: list[str]) -> dict[str, Any]:
    """The values given by position, by name; a setting that is a list takes all that are left.

    Raises:
        InputError: there are more values than settings.
    """
    values: dict[str, Any] = {}
    rest = list(given)
    for name, field in fields.items():
        if not rest:
            break
        if get_origin(field.annotation) is list:
            values[name] = rest
            rest = []
        else:
            values[name] = rest.pop(0)
    if rest:
        raise InputError(f"{rest[0]:.{MAX_SHOWN_FLAG}}", _not_a_flag(rest[0]))
    return values


def _drop_foreign(values: dict[str, Any], foreign: Mapping[str, ForeignFlag]) -> None:
    """Remove nanoGPT's flags from the values.

    Raises:
        InputError: some have values that are not accepted; answers all of them at once.
    """
    given = [name for name in values if name in foreign]
    refused = [name for name in given if values[name] not in foreign[name].accepted]
    if refused:
        first, *others = refused
        answers = foreign[first].answer + "".join(f"; --{name}: {foreign[name].answer}" for name in others)
        raise InputError(f"--{first}", answers)
    for name in given:
        del values[name]


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether `--help` is among the flags, which end at `--`."""
    for argument in arguments:
        if argument == "--":
            return False
        if argument in HELP_FLAGS:
            return True
    return False


def _next_value(name: str, field: FieldInfo | None, rest: list[str]) -> str:
    """Take the next argument as a flag's value. Only the value of a text may begin with dashes."""
    if not rest:
        raise InputError(f"--{name}", f"needs a value, --{name}=…")
    if rest[0].startswith("--") and not (field is not None and is_text(field)):
        raise InputError(f"--{name}", f"needs a value, --{name}=…; after it comes {rest[0]:.{MAX_SHOWN_FLAG}}")
    return rest.pop(0)


def _unknown(name: str, known: list[str]) -> str:
    """The message for a flag that does not exist, with the closest one that does."""
    close = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    suggestion = f"did you mean --{close[0]}? " if close else ""
    return f"there is no such flag; {suggestion}--help lists them all"


def _not_a_flag(argument: str) -> str:
    """The message for an argument that is neither a flag nor a positional value."""
    if argument.endswith(".py"):
        return (
            "a file of settings is Python code, which is not run here; give its settings as flags, or a --preset "
            "where the program has them"
        )
    return "is not a flag; write --name=value, in quotes if the value has spaces"


def is_text(field: FieldInfo) -> bool:
    """Whether a setting's value is a text, which may have any characters."""
    for member in get_args(field.annotation) or (field.annotation,):
        plain = get_args(member)[0] if get_origin(member) is Annotated else member
        if plain in TEXT_TYPES:
            return True
    return False


class ProgramSettings(BaseSettings):
    """The settings of one program: flags over environment over file over defaults.

    For a setting that is not a text, a blank variable counts as not set, and the values `None` and `null` mean
    None. A blank value is refused for the settings in `NEVER_BLANK`.
    """

    NEVER_BLANK: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The hook by which pydantic-settings asks for the `sources`; no program reads files of secrets."""
        return cls.sources(init_settings, env_settings, dotenv_settings)

    @classmethod
    def sources(
        cls,
        flags: PydanticBaseSettingsSource,
        variables: PydanticBaseSettingsSource,
        env_file: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources of this program's settings, the strongest first; a program with others overrides this."""
        return flags, NotBlank(variables), NotBlank(env_file)

    @field_validator("*", mode="before")
    @classmethod
    def read_none(cls, value: Any, info: ValidationInfo) -> Any:
        """None for a value that says so, where None is allowed; a blank value that is not a text is refused."""
        field = cls.model_fields[str(info.field_name)]
        if not isinstance(value, str) or is_text(field):
            return value
        if not value.strip():
            raise PydanticCustomError("blank", "Input should not be blank")
        return None if value in NONE_WORDS and type(None) in get_args(field.annotation) else value


class NotBlank(PydanticBaseSettingsSource):
    """Wraps another source and drops its blank values of settings that are not texts."""

    def __init__(self, source: PydanticBaseSettingsSource) -> None:
        super().__init__(source.settings_cls)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Look a value up in the wrapped source."""
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        return {name: value for name, value in self._source().items() if not self._is_blank(name, value)}

    def _is_blank(self, name: str, value: Any) -> bool:
        program = cast(type[ProgramSettings], self.settings_cls)
        field = program.model_fields.get(name)
        if field is None or name in program.NEVER_BLANK or is_text(field):
            return False
        return isinstance(value, str) and not value.strip()


def _without_index(value: Any) -> Any:
    """A device's name without the index 0: `cuda:0` is `cuda`."""
    match = DEVICE_WITH_INDEX.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    name, index = match.groups()
    if int(index) == 0:
        return name
    if name == "cuda":
        raise PydanticCustomError(
            "device",
            "another GPU than the first is chosen by CUDA_VISIBLE_DEVICES={index} in the environment, and cuda",
            {"index": index},
        )
    raise PydanticCustomError("device", "there is one {name} only; use {name}", {"name": name})


def _not_float16(value: Any) -> Any:
    """The value, unless it is a name of float16."""
    if value in ("float16", "fp16", "half"):
        raise PydanticCustomError("dtype", "float16 is not computed in here; use bfloat16, float32 or auto")
    return value


DeviceFlag = Annotated[DeviceName, BeforeValidator(_without_index)]
DtypeFlag = Annotated[DtypeName, BeforeValidator(_not_float16)]
GenerationDtypeFlag = Annotated[GenerationDtypeName, BeforeValidator(_not_float16)]
