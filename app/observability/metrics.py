"""The metrics for Prometheus at `/metrics`. Owns names, units, labels and buckets.

Each app has a registry of its own. What the service counts already is read when `/metrics` is. Knows nothing of
what requests say.
"""

import asyncio
from collections.abc import Iterable, Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from app.serving.service import Service

# Upper bounds of the histograms' buckets, in seconds
DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
WAITS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
GAPS = (0.026, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)  # few are under 0.025
LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
LAG_PERIOD = 1.0  # seconds between two measurements of the event loop
REFUSAL_REASONS = (
    "invalid",
    "unauthorized",
    "forbidden",
    "timeout",
    "too_large",
    "rate_limited",
    "queue_full",
    "draining",
)


class Metrics:
    """What is counted while requests are answered. `characters` and `streams` belong to the event loop alone."""

    def __init__(self, service: Service) -> None:
        own = CollectorRegistry()
        self.registry = own
        self.characters = 0
        self.streams = 0
        self.requests = Counter(
            "soliloquy_http_requests", "Requests answered", ["method", "route", "status"], registry=own
        )
        self.duration = Histogram(
            "soliloquy_http_request_duration_seconds",
            "From a request to the end of its answer",
            ["route"],
            buckets=DURATIONS,
            registry=own,
        )
        self.first_character = Histogram(
            "soliloquy_first_character_seconds",
            "From a request's place in the queue to its first character",
            buckets=WAITS,
            registry=own,
        )
        self.gap = Histogram(
            "soliloquy_flush_gap_seconds", "Between two flushes of a stream's text", buckets=GAPS, registry=own
        )
        self.rejections = Counter(
            "soliloquy_rejections", "Requests refused before anything was written", ["reason"], registry=own
        )
        self.cancellations = Counter(
            "soliloquy_cancellations", "Clients that left before the end of their answer", registry=own
        )
        self.slow_readers = Counter(
            "soliloquy_slow_readers_dropped", "Clients dropped because they read nothing", registry=own
        )
        self.stream_errors = Counter(
            "soliloquy_stream_errors", "Streams that ended with an error after they had begun", registry=own
        )
        self.loop_lag = Histogram(
            "soliloquy_event_loop_lag_seconds", "How late the event loop wakes", buckets=LAGS, registry=own
        )
        for reason in REFUSAL_REASONS:
            self.rejections.labels(reason)  # exported as 0, so that the first one is seen as a change
        own.register(ServiceCollector(service, self))
        ProcessCollector(registry=own)
        PlatformCollector(registry=own)

    def router(self) -> APIRouter:
        """The route that exports all of it, in Prometheus' own format or as OpenMetrics."""
        router = APIRouter()

        @router.get("/metrics", include_in_schema=False)
        async def export(request: Request) -> Response:
            encode, media_type = choose_encoder(request.headers.get("accept", ""))
            return Response(encode(self.registry), headers={"content-type": media_type})

        return router

    async def watch_loop(self) -> None:
        """Measure, until cancelled, how late the event loop wakes a task."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_PERIOD
            await asyncio.sleep(LAG_PERIOD)
            self.loop_lag.observe(max(0.0, loop.time() - due))


class ServiceCollector(Collector):
    """What the service and its engines count, read when `/metrics` is, whatever is being served by then."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """All of them, as prometheus_client calls for them."""
        yield from self._gauges()
        yield from self._counters()
        card = self._service.current.card
        about = {"checkpoint": card.checkpoint, "numerics": card.numerics}
        yield InfoMetricFamily("soliloquy_checkpoint", "What new texts are written by", about)

    def _gauges(self) -> Iterator[Metric]:
        engine = self._service.current.engine
        engines = self._service.engines
        for name, documentation, value in (
            ("ready", "1 while new work is taken", engine.ready),
            ("slots", "Texts that can be written at once", engine.generator.backend.slots),
            ("slots_active", "Texts that are being written", sum(one.active for one in engines)),
            ("queue_capacity", "Texts that may wait for a slot", self._service.settings.queue_size),
            ("queue_length", "Texts that wait for a slot", sum(one.waiting for one in engines)),
            ("reports_in_progress", "Reports made or waiting", self._service.reports.in_progress),
            ("snapshots_in_progress", "Snapshots made or waiting", self._service.snapshots.in_progress),
            ("streams_in_progress", "Event streams that are open", self._metrics.streams),
        ):
            yield GaugeMetricFamily(f"soliloquy_{name}", documentation, float(value))

    def _counters(self) -> Iterator[Metric]:
        for name, documentation, value in (
            ("characters", "Characters written", self._metrics.characters),
            (
                "engine_steps",
                "Calls of the generator, in each of which all texts go on by a step or some",
                self._service.steps,
            ),
            ("engine_failures", "Steps that failed", self._service.failures),
        ):
            yield CounterMetricFamily(f"soliloquy_{name}", documentation, value)
