"""The API's routes, without `/v1`: from HTTP to the engine and back.

Whether a request is refused is decided before any header is sent.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from sse_starlette import EventSourceResponse

from app.api.dependencies import ServiceDependency
from app.api.info import Info
from app.api.json_response import StreamedJsonResponse, buffered_json
from app.api.logprobs import json_line
from app.api.report import ReportRequest, report_on
from app.api.report_answer import ReportAnswer
from app.api.responses import Answer
from app.api.resume import HEADER, resume
from app.api.schemas import GenerateQuery, GenerateRequest, ScoreRequest, limit_length
from app.api.score import Score, write_score
from app.api.snapshots import SnapshotQuery, Snapshots
from app.api.stream_response import EventStreamResponse
from app.observability.exchange import record_of
from app.security.middleware import is_head
from app.security.rate_limit import claim_sequences
from app.serving.service import Service
from model.cancellation import CancelCheck

router = APIRouter()

NO_STORE = {"Cache-Control": "no-store"}
JSON_HEADERS = NO_STORE | {"Content-Type": "application/json"}
STREAM_HEADERS = {  # those of sse-starlette
    **NO_STORE,
    "Connection": "keep-alive",
    "X-Accel-Buffering": "no",
    "Content-Type": "text/event-stream; charset=utf-8",
}
LAST_EVENT_ID_NAMES = ("lastEventId", "last-event-id", "last_event_id", "Last-Event-ID")
LAST_EVENT_ID_QUERY = {
    "name": LAST_EVENT_ID_NAMES[0],
    "in": "query",
    "required": False,
    "schema": {"type": "string"},
    "description": f"The same as the header, which wins, for clients that cannot send one; or as "
    f"{LAST_EVENT_ID_NAMES[1]}.",
}
LastEventId = Annotated[
    str | None,
    Header(
        alias=HEADER,
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
    body: GenerateRequest, last_event_id: str | None, request: Request, service: Service
) -> Response:
    """Admit the request, or refuse it; then stream its answer, or wait until it is complete."""
    streamed = body.stream and not _wants_json(request)
    if not streamed:
        last_event_id = None
    elif not last_event_id:
        last_event_id = _last_event_id_of_query(request)
    body = limit_length(body, service.settings.max_new_tokens)
    serving = service.current
    resolved, token = resume(body, last_event_id, serving.vocabulary, serving.card)
    if not streamed:
        resolved.check_size()
    if resolved.report:
        serving.checkpoint.require_index()
    if token.done:  # an `EventSource` asks again and again, until 204 says that there is nothing more
        return Response(status_code=204, headers=NO_STORE)
    if is_head(request):
        resolved.sequences(serving.vocabulary, token.sent)  # for its refusals; nothing is generated
        return StreamingResponse(iter(()), headers=STREAM_HEADERS if streamed else JSON_HEADERS)
    claim_sequences(request, resolved.num_samples)
    handle = serving.engine.submit(resolved.sequences(serving.vocabulary, token.sent))
    record = record_of(request.scope)
    record.received(resolved.prompt)
    answer = Answer(handle, resolved, serving.card, serving.checkpoint, token, service.reports, record)
    if streamed:
        return EventStreamResponse(handle, answer.events(), service.settings)
    return await buffered_json(handle, answer.as_json(), request)


def _wants_json(request: Request) -> bool:
    """Whether the Accept header names JSON and not event streams."""
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/event-stream" not in accept


def _last_event_id_of_query(request: Request) -> str | None:
    """What polyfills of `EventSource` put into the query, since a page cannot set the header."""
    for name in LAST_EVENT_ID_NAMES:
        value = request.query_params.get(name)
        if value:
            return value
    return None


@router.post("/score", response_model=Score)
async def post_score(body: ScoreRequest, request: Request, service: ServiceDependency) -> Response:
    """How likely the model finds each character of a text after a prompt, by the rules by which it writes."""
    serving = service.current
    resolved = body.resolved(serving.vocabulary)
    claim_sequences(request, 1)
    handle = serving.engine.submit([resolved.sequence(serving.vocabulary)])
    return StreamedJsonResponse(handle, write_score(handle, resolved, serving.card, serving.vocabulary))


@router.post("/report", response_model=ReportAnswer)
async def post_report(body: ReportRequest, request: Request, service: ServiceDependency) -> Response:
    """What in a text is copied from the training text, what is invented, and how good it is, beside real text."""
    serving = service.current
    serving.checkpoint.require_index()
    with service.reports.admit():
        sequence = body.sequence(serving.checkpoint)
        claim_sequences(request, 1)
        handle = None if sequence is None else serving.engine.submit([sequence])
        return await buffered_json(
            handle, report_on(body.text, serving.checkpoint, handle, service.reports), request
        )


@router.get("/snapshots", response_model=Snapshots)
async def get_snapshots(
    query: Annotated[SnapshotQuery, Query()], request: Request, service: ServiceDependency
) -> Response:
    """The same prompt and seed at each snapshot of a training run; none if there are none."""
    if is_head(request):  # nothing is generated
        return StreamingResponse(iter(()), headers=JSON_HEADERS)
    store = service.current.snapshot_store

    def generate_texts(check_cancelled: CancelCheck) -> dict[str, Any]:
        return store.generate(query.text(), check_cancelled)

    async def content() -> str:
        return json_line(await service.snapshots.run(generate_texts))

    with service.snapshots.admit():
        return await buffered_json(None, content(), request)


@router.get("/info")
async def info(service: ServiceDependency) -> Info:
    """The model card: what is served; among all of it `default_prompt`, which an empty prompt stands for."""
    return Info.of(service.current.card)


@router.get("/health/live")
async def live() -> dict[str, str]:
    """The process is up."""
    return {"status": "live"}


@router.get(
    "/health/ready",
    responses={
        503: {
            "description": "The server stops, or its generator has failed.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    },
)
async def ready(service: ServiceDependency) -> JSONResponse:
    """The model is loaded and the server takes work; 503 while it stops."""
    if service.current.engine.ready:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "not ready"}, status_code=503)
