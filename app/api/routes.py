"""The API's routes: from HTTP to the engine and back. Admission is decided before any header goes out."""

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from sse_starlette import EventSourceResponse

from app.api.dependencies import ServiceDependency
from app.api.json_response import GrowingAnswer, whole
from app.api.logprobs import json_line
from app.api.report import ReportRequest, report_on
from app.api.responses import Answer
from app.api.resume import FIELD, resume
from app.api.schemas import GenerateQuery, GenerateRequest, ScoreRequest, limit_length
from app.api.score import Score, score
from app.api.snapshots import SnapshotQuery
from app.api.stream_response import JobStream
from app.observability.exchange import meter_of
from app.security.middleware import is_head
from app.security.rate_limit import claim_streams
from app.serving.service import Service

logger = logging.getLogger(__name__)
router = APIRouter()


NO_STORE = {"Cache-Control": "no-store"}
JSON_HEADERS = NO_STORE | {"Content-Type": "application/json"}
STREAM_HEADERS = {  # as sse-starlette's
    **NO_STORE,
    "Connection": "keep-alive",
    "X-Accel-Buffering": "no",
    "Content-Type": "text/event-stream; charset=utf-8",
}
IN_QUERY = ("lastEventId", "last-event-id", "last_event_id", "Last-Event-ID")
LAST_EVENT_ID_QUERY = {
    "name": IN_QUERY[0],
    "in": "query",
    "required": False,
    "schema": {"type": "string"},
    "description": f"The same as the header, which wins, for clients that cannot send one; or as {IN_QUERY[1]}.",
}
LastEventId = Annotated[
    str | None,
    Header(
        alias=FIELD,
        description="The id of the last `text` event that has come, of an answer to the same request: go on after "
        "it. The seed may be left out. Ignored where the answer is one JSON object.",
    ),
]


@router.post("/generate", response_class=EventSourceResponse)
async def post_generate(
    body: GenerateRequest, request: Request, service: ServiceDependency, last_event_id: LastEventId = None
) -> Response:
    """Write text after a prompt: server-sent events, or one JSON object with `"stream": false`."""
    return await generate(body, last_event_id, request, service)


@router.get(
    "/generate",
    response_class=EventSourceResponse,
    openapi_extra={"parameters": [LAST_EVENT_ID_QUERY]},
)
async def get_generate(
    query: Annotated[GenerateQuery, Query()],
    request: Request,
    service: ServiceDependency,
    last_event_id: LastEventId = None,
) -> Response:
    """The same for a browser's `EventSource`; left open after `done`, it asks once more and hears 204, the end."""
    return await generate(query, last_event_id, request, service)


async def generate(
    asked: GenerateRequest, last_event_id: str | None, request: Request, service: Service
) -> Response:
    """Admit the request, or refuse it; then stream its answer or wait for all of it."""
    accept = request.headers.get("accept", "")
    streamed = asked.stream and not ("application/json" in accept and "text/event-stream" not in accept)
    asked = limit_length(asked, service.settings.max_new_tokens)
    serving = service.current
    last_event_id = (last_event_id or _last_event_id(request)) if streamed else None
    in_force, place = resume(asked, last_event_id, serving.vocabulary, serving.card)
    if not streamed:
        in_force.check_size()
    if in_force.report:
        serving.checkpoint.require_index()
    if place.done:  # an `EventSource` asks again and again, until it hears that there is nothing more
        return Response(status_code=204, headers=NO_STORE)
    if is_head(request):  # no text is written for nobody
        in_force.streams(serving.vocabulary, place.sent)
        return StreamingResponse(iter(()), headers=STREAM_HEADERS if streamed else JSON_HEADERS)
    claim_streams(request, in_force.num_samples)
    job = serving.engine.submit(in_force.streams(serving.vocabulary, place.sent))
    meter = meter_of(request.scope)
    meter.asked(in_force.prompt)
    answer = Answer(job, in_force, serving.card, serving.checkpoint, place, service.reports, meter)
    if streamed:
        return JobStream(job, answer.events(), service.settings)
    return await whole(job, answer.whole(), request)


@router.post("/score", response_model=Score)
async def post_score(body: ScoreRequest, request: Request, service: ServiceDependency) -> Response:
    """How likely the model finds each character of a text after a prompt, by the rules by which it writes."""
    serving = service.current
    in_force = body.in_force(serving.vocabulary)
    claim_streams(request, 1)
    job = serving.engine.submit([in_force.stream(serving.vocabulary)])
    return GrowingAnswer(job, score(job, in_force, serving.card, serving.vocabulary))


@router.post("/report")
async def post_report(body: ReportRequest, request: Request, service: ServiceDependency) -> Response:
    """What in a text is copied from the training text, what is invented, and how good it is, beside real text."""
    serving = service.current
    serving.checkpoint.require_index()
    with service.reports.place():
        stream = body.stream(serving.checkpoint)
        claim_streams(request, 1)
        job = serving.engine.submit([stream]) if stream else None
        return await whole(job, report_on(body.text, serving.checkpoint, job, service.reports), request)


def _last_event_id(request: Request) -> str | None:
    """What polyfills of `EventSource` put into the query, for a page cannot set the header."""
    found = [request.query_params[name] for name in IN_QUERY if request.query_params.get(name)]
    return found[0] if found else None


@router.get("/snapshots", response_model=dict[str, Any])
async def get_snapshots(
    query: Annotated[SnapshotQuery, Query()], request: Request, service: ServiceDependency
) -> Response:
    """The same prompt and seed at each snapshot of a training run; none if there are none."""
    if is_head(request):  # no text is written for nobody
        return StreamingResponse(iter(()), headers=JSON_HEADERS)
    gallery = service.current.gallery

    async def write() -> str:
        return json_line(
            await service.snapshots.run(lambda check_cancelled: gallery.write(query.wanted(), check_cancelled))
        )

    with service.snapshots.place():
        return await whole(None, write(), request)


@router.get("/info")
async def info(service: ServiceDependency) -> dict[str, Any]:
    """The model card: what is served; among all of it `default_prompt`, which an empty prompt stands for."""
    return service.current.card.content()


@router.get("/health/live")
async def live() -> dict[str, str]:
    """The process is up."""
    return {"status": "live"}


@router.get("/health/ready")
async def ready(service: ServiceDependency) -> JSONResponse:
    """The model is loaded and the server takes work; 503 while it stops."""
    if service.current.engine.ready:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "not ready"}, status_code=503)
