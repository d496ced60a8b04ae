"""What can be set for the server, by flag, environment or `.env` file."""

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.limits import parse_rate
from app.schemas import MAX_NEW_TOKENS
from model.cli import settings_config
from model.flags import DeviceFlag, GenerationDtypeFlag, ProgramSettings

HOST_PATTERN = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]", re.IGNORECASE)
ORIGIN = re.compile(r"https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]+)?")
FORMS = {
    "rate_limit": "one rate above 0, such as 60/minute",
    "trusted_hosts": "host names without a port, such as example.org or *.example.org, separated by commas",
    "trusted_proxies": "addresses or networks, such as 10.0.0.0/8, separated by commas",
    "cors_origins": "origins in small letters, such as https://example.org, separated by commas, or *",
}


def listed(text: str | None) -> list[str]:
    """The parts of a setting that has several, separated by commas."""
    return [] if text is None else [part.strip() for part in text.split(",")]


def has_form(name: str, text: str) -> bool:
    """Whether a setting can be used; what is refused would protect nobody, or let everybody in."""
    try:
        match name:
            case "rate_limit":
                parse_rate(text)
            case "trusted_proxies":
                [ip_network(part) for part in listed(text)]
            case "trusted_hosts":
                return all(map(HOST_PATTERN.fullmatch, listed(text)))
            case _:
                return text == "*" or all(map(ORIGIN.fullmatch, listed(text)))
    except ValueError:
        return False
    return True


class ServerSettings(ProgramSettings):
    """Serve a checkpoint: the playground and the HTTP API."""

    model_config = settings_config("app", "SOLILOQUY_", env_file=".env")

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every network this machine is in"""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on"""
    checkpoint: Path = Path("checkpoints/shakespeare-char")
    """Checkpoint folder; SIGHUP reads it again and changes over without ending a stream"""
    device: DeviceFlag = "auto"
    """Where to compute"""
    dtype: GenerationDtypeFlag = "auto"
    """Number format; auto is int8 on a CPU, bfloat16 on a GPU that has it, float32 elsewhere"""
    threads: int | None = Field(None, ge=1)
    """Threads that compute int8; if not given, all cores, or those of a container's quota"""
    slots: int = Field(32, ge=1, le=1024)
    """Samples written at once; more than that wait"""
    queue_size: int = Field(64, ge=0)
    """Samples that may wait for a slot; beyond that, 503"""
    buffer_characters: int = Field(4096, ge=1)
    """Text that waits for a slow reader before its samples pause"""
    send_timeout: float = Field(30.0, gt=0)
    """Seconds that a client may leave sent text unread before it is dropped"""
    drain_seconds: float = Field(5.0, ge=0)
    """Seconds that running streams get to finish when the server stops"""

    max_new_tokens: int = Field(MAX_NEW_TOKENS, ge=1, le=MAX_NEW_TOKENS)
    """Most characters that one request may ask for, per sample"""
    api_keys: SecretStr | None = None
    """Keys, separated by commas, one of which every client must send; best given in the environment"""
    api_keys_file: Path | None = None
    """File with such keys, one a line; read again at SIGHUP"""
    rate_limit: str | None = None
    """Requests per client, such as 60/minute; no limit if not given"""
    streams_per_client: int | None = Field(None, ge=1)
    """Texts that one client may have written at once; no limit if not given"""
    trusted_hosts: str | None = None
    """Host names, separated by commas, that requests may be for; *.example.org for all below; any if not given"""
    trusted_proxies: str | None = None
    """Addresses or networks, separated by commas, of proxies whose X-Forwarded headers count; none if not given"""
    cors_origins: str | None = None
    """Origins, separated by commas, whose pages may call the API from a browser; none if not given"""
    request_timeout: float = Field(8.0, gt=0)
    """Seconds that a client may take to send a request"""
    idle_timeout: int = Field(15, ge=1)
    """Seconds that a connection is kept for a next request"""

    log_format: Literal["text", "json"] = "text"
    """Lines to read, or a JSON object a line"""
    log_prompts: bool = False
    """Write prompts into the log; they may be private"""
    metrics: bool = True
    """Tell Prometheus at /metrics"""
    tracing: bool = False
    """Send OpenTelemetry traces; configured by the standard OTEL_ variables"""

    @field_validator(*FORMS)
    @classmethod
    def check_form(cls, value: str | None, info: ValidationInfo) -> str | None:
        """Refuse by name what cannot be used."""
        if value is not None and not has_form(str(info.field_name), value):
            raise PydanticCustomError("form", "Input should be {form}", {"form": FORMS[str(info.field_name)]})
        return value
