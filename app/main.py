"""The application: settings in, a FastAPI app out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import problems
from app.api import routes
from app.api.json_response import Unread
from app.api.openai import routes as openai_routes
from app.application import Application
from app.observability.middleware import RequestObserver
from app.security.api_keys import ApiKeys
from app.serving.service import Service
from app.settings import ServerSettings
from app.web import page


def create_app(settings: ServerSettings) -> FastAPI:
    """Load the checkpoint and build the app around it; its engine runs while the app does.

    Raises:
        CheckpointError, DeviceError: what cannot be served, before anything listens.
        InputError: a setting that cannot be used.
    """
    keys = ApiKeys(settings)  # before the checkpoint, which takes a while
    service = Service(settings)
    observer = RequestObserver(service)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            async with observer.running(), app.state.recorder.running():
                yield
        finally:
            service.close()

    app = Application(settings, keys, observer, lifespan)
    app.state.service = service
    app.state.unread = Unread()
    problems.install(app)
    app.include_router(routes.router)
    app.include_router(openai_routes.router)
    page.install(app)
    if settings.metrics:
        app.include_router(observer.metrics.router())
    return app
