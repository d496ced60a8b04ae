"""What can be set for the server, by flag, environment or `.env` file."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

from model.cli import settings_config
from model.device import DeviceName, GenerationDtypeName


class ServerSettings(BaseSettings):
    """Serve a checkpoint: the playground and the HTTP API."""

    model_config = settings_config("app", "SOLILOQUY_", env_file=".env")

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every network this machine is in"""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on"""
    checkpoint: Path = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    device: DeviceName = "auto"
    """Where to compute"""
    dtype: GenerationDtypeName = "auto"
    """Number format; auto is int8 on a CPU, bfloat16 on a GPU that has it, float32 elsewhere"""
    threads: int | None = Field(None, ge=1)
    """Threads that compute int8; all cores if not given"""
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
