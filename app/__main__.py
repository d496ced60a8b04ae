"""Serve: `python -m app --host --port`."""

import sys
from collections.abc import Callable
from types import FrameType

import uvicorn

from app.engine import Engine
from app.main import create_app
from app.settings import ServerSettings
from model.cli import run

SWITCH_SECONDS = 0.0005  # that Python code may keep the generator waiting; 0.005 if not set


class Server(uvicorn.Server):
    """uvicorn, which tells the engine to drain as soon as it is asked to stop."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self.drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On SIGINT or SIGTERM; a second SIGINT stops at once."""
        self.drain()
        super().handle_exit(sig, frame)


def serve(settings: ServerSettings) -> None:
    """Start up, serve until told to stop, finish what was begun."""
    sys.setswitchinterval(SWITCH_SECONDS)
    app = create_app(settings)
    card = app.state.service.card
    print(f"checkpoint {card.checkpoint}: {card.parameters / 1e6:.2f}M parameters on {card.numerics}")
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=int(settings.drain_seconds) + 3,
        ws="none",
    )
    engine: Engine = app.state.service.engine
    Server(config, lambda: engine.drain(settings.drain_seconds)).run()


if __name__ == "__main__":
    sys.exit(run(ServerSettings, serve, sys.argv[1:]))
