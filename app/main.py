"""The application: settings in, a FastAPI app out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Scope

from app import problems
from app.card import ModelCard
from app.engine import Engine
from app.routes import Service, router
from app.settings import ServerSettings
from model.checkpoint import read_checkpoint
from model.device import choose_numerics
from model.generator import load_generator


class RevalidatedFiles(StaticFiles):
    """Static files that a browser asks about again, so that a new version is seen at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or 304 if the browser has it."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def create_app(settings: ServerSettings) -> FastAPI:
    """Load the checkpoint and build the app around it; its engine runs while the app does.

    Raises:
        CheckpointError, DeviceError: what cannot be served, before anything listens.
    """
    numerics = choose_numerics(settings.device, settings.dtype)
    checkpoint = read_checkpoint(settings.checkpoint)
    generator = load_generator(checkpoint, numerics, settings.slots, settings.threads)
    engine = Engine(generator, settings.queue_size, settings.buffer_characters)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        try:
            yield
        finally:
            engine.close()

    app = FastAPI(title="Soliloquy", summary="A small GPT, one character at a time", lifespan=lifespan)
    app.state.service = Service(settings, engine, checkpoint.vocabulary, ModelCard.of(checkpoint, numerics))
    problems.install(app)
    app.include_router(router)
    app.mount("/static", RevalidatedFiles(directory=Path(__file__).parent.parent / "static"))
    return app
