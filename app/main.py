"""The application: settings in, a FastAPI app out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import page, problems
from app.card import ModelCard
from app.engine import Engine
from app.routes import Service, router
from app.settings import ServerSettings
from app.snapshots import Gallery, make_router
from model.checkpoint import read_checkpoint
from model.device import choose_numerics
from model.generator import load_generator


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
    gallery = Gallery(settings.checkpoint, numerics)
    card = ModelCard.of(checkpoint, numerics, gallery.steps)
    app.state.service = Service(settings, engine, checkpoint, card)
    problems.install(app)
    app.include_router(router)
    app.include_router(make_router(gallery))
    page.install(app, card)
    return app
