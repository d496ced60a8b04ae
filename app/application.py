"""FastAPI with this server's middleware. Owns the order of the layers, and the completed OpenAPI document.

Knows nothing of what a layer does, or of how routes are answered.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from app.api import openapi
from app.observability.middleware import Observe, RequestObserver
from app.security.api_keys import ApiKeys, KeyCheck
from app.security.middleware import HeadRequests, SecurityHeaders, SizeLimits, TrustedHosts, cors
from app.security.rate_limit import ConcurrencyLimit, RateLimit
from app.server.paths import CanonicalPaths
from app.settings import ServerSettings, listed, parse_rate


def outer_layers(settings: ServerSettings, observer: RequestObserver) -> list[Middleware]:
    """The layers that have to see the answers to unexpected errors too; outermost first."""
    layers = [
        Middleware(CanonicalPaths, root_path=settings.root_path),
        Middleware(Observe, observer=observer),
        Middleware(SecurityHeaders),
    ]
    if settings.cors_origins is not None:
        layers.append(cors(settings.cors_origins))
    return layers


def inner_layers(settings: ServerSettings, keys: ApiKeys) -> list[Middleware]:
    """The layers around the routes; outermost first. Each relies on those before it."""
    layers: list[Middleware] = []
    if settings.trusted_hosts is not None:
        layers.append(Middleware(TrustedHosts, trusted=listed(settings.trusted_hosts.lower())))
    layers.append(Middleware(SizeLimits))
    if keys:
        layers.append(Middleware(KeyCheck, keys=keys))  # says whose request it is, for the limits below
    if settings.rate_limit is not None:
        layers.append(Middleware(RateLimit, rate=parse_rate(settings.rate_limit)))
    if settings.streams_per_client is not None:
        layers.append(Middleware(ConcurrencyLimit, limit=settings.streams_per_client))
    layers.append(Middleware(HeadRequests))
    return layers


class Application(FastAPI):
    """An app whose requests pass `outer_layers`, Starlette's handler of unexpected errors, then `inner_layers`.

    Starlette puts its handler around all middleware that it is given, hence the two lists.
    """

    def __init__(
        self,
        settings: ServerSettings,
        keys: ApiKeys,
        observer: RequestObserver,
        lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    ) -> None:
        self._root_path_of_proxy = settings.root_path
        self._outer_layers = outer_layers(settings, observer)
        self._completed: dict[str, Any] | None = None
        super().__init__(
            title="Soliloquy",
            summary="A small GPT, one character at a time",
            lifespan=lifespan,
            middleware=inner_layers(settings, keys),
            docs_url=None,  # app/web/page.py has it, guarded
            redoc_url=None,
            # FastAPI's own spans have the query, which may be a prompt; ours are of app/observability/tracing.py
            telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        )
        self.state.keys = keys
        self.state.observer = observer

    def build_middleware_stack(self) -> ASGIApp:
        """Starlette's stack, inside of the outer layers."""
        app = super().build_middleware_stack()
        for layer, args, options in reversed(self._outer_layers):
            app = layer(app, *args, **options)
        return app

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made when it is first asked for."""
        document = super().openapi()
        if document is not self._completed:
            openapi.complete(document, needs_key=bool(self.state.keys))
            if self._root_path_of_proxy:
                document["servers"] = [{"url": self._root_path_of_proxy}]
            self._completed = document
        return document
