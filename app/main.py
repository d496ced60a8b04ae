"""The application: settings in, a FastAPI app out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import problems
from app.api import openapi, routes
from app.api.json_response import Unread
from app.api.openai import routes as completions
from app.observability.middleware import RequestObserver
from app.security import middleware as security
from app.security.api_keys import ApiKeys
from app.server import paths
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
            async with observer.running():
                yield
        finally:
            service.close()

    app = FastAPI(
        title="Soliloquy",
        summary="A small GPT, one character at a time",
        lifespan=lifespan,
        docs_url=None,  # app/web/page.py has it, guarded
        redoc_url=None,
        # FastAPI's own spans have the query, which may be a prompt; ours are made in app/observability/tracing.py
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.service = service
    app.state.unread = Unread()
    problems.install(app)
    security.install(app, settings, keys)
    app.include_router(routes.router)
    app.include_router(completions.router)
    page.install(app)
    openapi.install(app)
    observer.install(app)
    paths.install(app, settings)
    return app
