"""The application: settings in, a FastAPI app out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import page, problems, routes, snapshots
from app.service import Service
from app.settings import ServerSettings


def create_app(settings: ServerSettings) -> FastAPI:
    """Load the checkpoint and build the app around it; its engine runs while the app does.

    Raises:
        CheckpointError, DeviceError: what cannot be served, before anything listens.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            service.close()

    app = FastAPI(title="Soliloquy", summary="A small GPT, one character at a time", lifespan=lifespan)
    app.state.service = service
    problems.install(app)
    app.include_router(routes.router)
    app.include_router(snapshots.router)
    page.install(app)
    return app
