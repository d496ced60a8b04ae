"""The routes: from HTTP to the engine and back. Admission is decided before any header goes out."""

import asyncio
import logging
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.templating import Jinja2Templates
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from app.card import ModelCard
from app.engine import Engine
from app.events import Answer
from app.job import Job
from app.schemas import GenerateQuery, GenerateRequest
from app.settings import ServerSettings
from model.vocabulary import Vocabulary

logger = logging.getLogger(__name__)
router = APIRouter()
templates = Jinja2Templates(Path(__file__).parent.parent / "templates")


class Service:
    """What the routes need of the running server."""

    def __init__(self, settings: ServerSettings, engine: Engine, vocabulary: Vocabulary, card: ModelCard) -> None:
        self.settings, self.engine, self.vocabulary, self.card = settings, engine, vocabulary, card


def get_service(request: Request) -> Service:
    """The one service of this app."""
    service: Service = request.app.state.service
    return service


ServiceDependency = Annotated[Service, Depends(get_service)]


class JobStream(EventSourceResponse):
    """An event stream that gives its job up however it ends, even if it never began."""

    def __init__(self, job: Job, answer: Answer, settings: ServerSettings) -> None:
        super().__init__(
            answer.events(),
            sep="\n",
            ping=15,
            ping_message_factory=lambda: ServerSentEvent(comment="keep-alive", sep="\n"),
            send_timeout=settings.send_timeout,
            shutdown_grace_period=settings.drain_seconds + 1,
        )
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until done, disconnected, too slow, or shut down."""
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            logger.info("dropped %s: its reader took nothing for %g seconds", self._job.id, self.send_timeout)
        finally:
            self._job.cancel()


@router.post("/generate", response_class=EventSourceResponse)
async def post_generate(body: GenerateRequest, request: Request, service: ServiceDependency) -> Response:
    """Write text after a prompt: server-sent events, or one JSON object with `"stream": false`."""
    return await generate(body, request, service)


@router.get("/generate", response_class=EventSourceResponse)
async def get_generate(
    query: Annotated[GenerateQuery, Query()], request: Request, service: ServiceDependency
) -> Response:
    """The same for a browser's `EventSource`, which must be closed at `done` or it asks again."""
    return await generate(query, request, service)


async def generate(asked: GenerateRequest, request: Request, service: Service) -> Response:
    """Admit the request, or refuse it; then stream its answer or wait for all of it."""
    in_force = asked.in_force(service.vocabulary)
    job = service.engine.submit(in_force.streams(service.vocabulary))
    answer = Answer(job, in_force, service.card, service.vocabulary)
    accept = request.headers.get("accept", "")
    if asked.stream and not ("application/json" in accept and "text/event-stream" not in accept):
        return JobStream(job, answer, service.settings)
    return await _whole(job, answer, request)


async def _whole(job: Job, answer: Answer, request: Request) -> Response:
    """The JSON answer; given up as soon as the client goes."""
    writing = asyncio.ensure_future(answer.whole())
    leaving = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait((writing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if writing.done():
            return JSONResponse(writing.result(), headers={"Cache-Control": "no-store"})
        return Response(status_code=499)  # nobody will read it
    finally:
        job.cancel()
        writing.cancel()
        leaving.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@router.get("/info")
def info(service: ServiceDependency) -> dict[str, Any]:
    """The model card."""
    return service.card.content()


@router.get("/health/live")
def live() -> dict[str, str]:
    """The process is up."""
    return {"status": "live"}


@router.get("/health/ready")
def ready(service: ServiceDependency) -> JSONResponse:
    """The model is loaded and the server takes work; 503 while it stops."""
    if service.engine.ready:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "not ready"}, status_code=503)


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
def page(request: Request, service: ServiceDependency) -> HTMLResponse:
    """The playground."""
    return templates.TemplateResponse(request, "index.html", {"card": service.card})
