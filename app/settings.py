"""The server's settings, by flag, environment or `.env` file. Owns their names, defaults and validation."""

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any, ClassVar, Literal

from dotenv import dotenv_values
from limits import RateLimitItem, parse_many
from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import EnvSettingsSource, PydanticBaseSettingsSource

from app import environment
from model.cli import SettingsPath, env_file_encoding, settings_config
from model.errors import InputError
from model.flags import DeviceFlag, GenerationDtypeFlag, ProgramSettings

MAX_NEW_TOKENS = 100_000

ENV_FILE = ".env"
HOST_PATTERN = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]", re.IGNORECASE)
ROOT_PATH = re.compile(r"(/[a-z0-9_~-][a-z0-9._~-]*)*/?", re.IGNORECASE)
ORIGIN = re.compile(
    r"https?://(\*\.)?([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:([0-9]+|\*))?"
    r"|(?!https?:)[a-z][a-z0-9+.-]*://[a-z0-9_.-]*(:([0-9]+|\*))?"  # of an app, such as tauri://localhost
)
DEFAULT_PORTS = re.compile("(?<=^http:)(.*):80|(?<=^https:)(.*):443")
FORMS = {
    "root_path": "a path such as /gpt, of letters, digits, '.', '_', '~' and '-'",
    "rate_limit": "one rate above 0, such as 60/minute",
    "trusted_hosts": "host names without a port, such as example.org or *.example.org, separated by commas",
    "trusted_proxies": "addresses or networks, such as 10.0.0.0/8, separated by commas",
    "cors_origins": "origins in small letters, such as https://example.org, http://localhost:* or app://name, "
    "separated by commas, or * for all, but not null, which is any page that has no origin",
}
FORMS["frame_ancestors"] = FORMS["cors_origins"]
MAX_RATE = 10**9
MAX_RATE_SECONDS = 366 * 86_400
MAX_SECONDS = 7 * 86_400.0
MAX_THREADS = 256
MAX_WAITING = 1_000_000


def listed(text: str | None) -> list[str]:
    """The parts of a setting, which are separated by commas; none if it is not set."""
    return [] if text is None else [part.strip() for part in text.split(",")]


def has_form(name: str, text: str) -> bool:
    """Whether the text of a setting is valid. Invalid ones are refused, for most would protect nobody."""
    try:
        match name:
            case "rate_limit":
                rate = parse_rate(text)
                return rate.amount <= MAX_RATE and rate.get_expiry() <= MAX_RATE_SECONDS
            case "root_path":
                return ROOT_PATH.fullmatch(text) is not None
            case "trusted_proxies":
                [ip_network(part) for part in listed(text)]
            case "trusted_hosts":
                return all(map(HOST_PATTERN.fullmatch, listed(text)))
            case _:
                return text == "*" or all(map(ORIGIN.fullmatch, listed(text)))
    except ValueError:
        return False
    return True


def origin_pattern(text: str) -> str:
    """A regular expression of the origins in a setting; `:*` matches any port or none, `*.` any subdomain."""
    patterns = []
    for origin in listed(text):
        pattern = re.escape(DEFAULT_PORTS.sub(r"\1\2", origin))
        pattern = pattern.replace(r"\*\.", "([a-z0-9_-]+\\.)+").replace(r":\*", "(:[0-9]+)?")
        patterns.append(pattern)
    return "|".join(patterns)


class ServerSettings(ProgramSettings):
    """Serve a checkpoint: the playground and the HTTP API."""

    NEVER_BLANK: ClassVar[frozenset[str]] = environment.NEVER_BLANK
    model_config = settings_config("app", "SOLILOQUY_", env_file=ENV_FILE) | {
        "env_ignore_empty": False,  # see `usable`
        "cli_parse_none_str": "(none)",  # else --api_keys=null would open the server without a word
    }

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every network this machine is in"""
    port: int = Field(environment.DEFAULT_PORT, ge=0, le=65535)
    """Port to listen on"""
    root_path: str = ""
    """Path below which a proxy shows the server, such as /gpt; whether the proxy hands it on or cuts it off"""
    checkpoint: SettingsPath = Path("checkpoints/shakespeare-char")
    """Checkpoint folder; SIGHUP reads it again and changes over without ending a stream"""
    device: DeviceFlag = "auto"
    """Where to compute"""
    dtype: GenerationDtypeFlag = "auto"
    """Number format; auto is int8 on a CPU, bfloat16 on a GPU that has it, float32 elsewhere"""
    threads: int | None = Field(None, ge=1, le=MAX_THREADS)
    """Threads that compute int8; if not given, all cores, or those of a container's quota"""
    slots: int = Field(32, ge=1, le=1024)
    """Samples written at once; more than that wait"""
    queue_size: int = Field(64, ge=0, le=MAX_WAITING)
    """Samples that may wait for a slot; beyond that, 503"""
    buffer_characters: int = Field(4096, ge=1, le=1 << 24)
    """Text that waits for a slow reader before its samples pause"""
    send_timeout: float = Field(30.0, gt=0, le=MAX_SECONDS)
    """Seconds that a client may leave sent text unread before it is dropped"""
    drain_seconds: float = Field(5.0, ge=0, le=MAX_SECONDS)
    """Seconds that running streams get to finish when the server stops"""

    max_new_tokens: int = Field(MAX_NEW_TOKENS, ge=1, le=MAX_NEW_TOKENS)
    """Most characters that one request may ask for, per sample"""
    api_keys: SecretStr | None = None
    """Keys, separated by commas, one of which every client must send; best given in the environment"""
    api_keys_file: SettingsPath | None = None
    """File with such keys, one a line; read again at SIGHUP"""
    rate_limit: str | None = None
    """Requests per client, such as 60/minute; no limit if not given"""
    streams_per_client: int | None = Field(None, ge=1, le=MAX_WAITING)
    """Texts that one client may have written at once; no limit if not given"""
    trusted_hosts: str | None = None
    """Host names, separated by commas, that requests may be for; *.example.org for all below; any if not given"""
    trusted_proxies: str | None = None
    """Addresses or networks, separated by commas, of proxies whose X-Forwarded headers count; none if not given"""
    cors_origins: str | None = None
    """Origins, separated by commas, whose pages may call the API from a browser, such as https://example.org or
    http://localhost:*; none if not given"""
    request_timeout: float = Field(8.0, gt=0, le=MAX_SECONDS)
    """Seconds that a client may take to send a request"""
    idle_timeout: int = Field(15, ge=1, le=int(MAX_SECONDS))
    """Seconds that a connection is kept for a next request"""
    connections: int = Field(4096, ge=1)
    """Connections open at once; for more, those that wait for a request are closed, the oldest first"""

    log_format: Literal["text", "json"] = "text"
    """Lines to read, or a JSON object a line"""
    log_prompts: bool = False
    """Write prompts into the log; they may be private"""
    recording: bool = True
    """Write one text after the start, which the page shows first-time visitors being written"""
    frame_ancestors: str | None = None
    """Origins, separated by commas, whose pages may show the page in a frame, such as https://example.org; none if
    not given"""
    metrics: bool = True
    """Tell Prometheus at /metrics"""
    tracing: bool = False
    """Send OpenTelemetry traces; configured by the standard OTEL_ variables"""

    @field_validator(*FORMS)
    @classmethod
    def check_form(cls, value: str | None, info: ValidationInfo) -> str | None:
        """Refuse a text that is not valid for its setting."""
        if value is not None and not has_form(str(info.field_name), value):
            raise PydanticCustomError("form", "Input should be {form}", {"form": FORMS[str(info.field_name)]})
        return value

    @field_validator("root_path")
    @classmethod
    def cut_slash(cls, value: str) -> str:
        """The prefix without a slash at its end; `/` alone becomes no prefix."""
        return value.rstrip("/")

    @field_validator("api_keys_file", mode="before")
    @classmethod
    def check_path(cls, value: Any) -> Any:
        """Refuse a blank, which would leave a server open that somebody meant to close."""
        if isinstance(value, str) and not value.strip():
            raise PydanticCustomError(
                "blank", "Input should be a file of keys; leave it out where no key is wanted"
            )
        return value

    @classmethod
    def sources(
        cls,
        flags: PydanticBaseSettingsSource,
        variables: PydanticBaseSettingsSource,
        env_file: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources of settings, with only the usable variables of the environment and of the file.

        Raises:
            InputError: a variable seems to hold API keys, but is not the setting for them.
        """
        for source in (variables, env_file):
            if isinstance(source, EnvSettingsSource):
                variable = environment.key_like(source.env_vars, cls.model_fields)
                if variable is not None:
                    reason = "is not a setting, and no key would be asked for; did you mean SOLILOQUY_API_KEYS?"
                    raise InputError(variable, reason)
                source.env_vars = environment.usable(source.env_vars)
        return super().sources(flags, variables, env_file)


def remarks_on_variables() -> list[str]:
    """Warnings about the variables that are set for the server; see `environment.remarks`."""
    in_file = dotenv_values(ENV_FILE, encoding=env_file_encoding(Path(ENV_FILE)))
    return environment.remarks(in_file | os.environ, ServerSettings.model_fields)


def parse_rate(text: str) -> RateLimitItem:
    """The rate of a setting such as `60/minute`.

    Raises:
        ValueError: it is not a rate, or several, or one of 0.
    """
    [rate] = parse_many(text)
    if rate.amount < 1:
        raise ValueError(text)
    return rate
