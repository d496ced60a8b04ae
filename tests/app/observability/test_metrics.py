import asyncio
import gc
import json
import re
import shutil
import subprocess
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from app.main import create_app
from app.observability.metrics import REFUSAL_REASONS, Metrics
from app.serving.engine import Engine
from app.serving.service import Service
from app.settings import ServerSettings
from tests.tiny import tiny_generator

DEPLOY = Path(__file__).parents[3] / "deploy"
NAME = re.compile(r"\b(?:soliloquy|process|python)_\w+")
ROUTES = {"/", "/info", "/metrics", "/static/{path}", "/v1/models", "/v1/models/{name}", "other"}
UP = {'up{job="soliloquy", instance="a"}': "1x60"}
BUCKET = '{instance="a", le="%s"}'
ALERTS: dict[str, dict[str, str]] = {  # what makes each fire, as promtool writes series
    "SoliloquyDown": {},
    "SoliloquyNotReady": UP | {'soliloquy_ready{instance="a"}': "0x60"},
    "SoliloquyErrors": UP
    | {
        'soliloquy_http_requests_total{instance="a", status="200"}': "0+90x60",
        'soliloquy_http_requests_total{instance="a", status="500"}': "0+6x60",
        'soliloquy_stream_errors_total{instance="a"}': "0+1x60",
    },
    "SoliloquyEngineFailing": UP | {'soliloquy_engine_failures_total{instance="a"}': "0x40 1x20"},
    "SoliloquyFull": UP | {'soliloquy_rejections_total{instance="a", reason="queue_full"}': "0+1x60"},
} | {
    name: UP
    | {f"soliloquy_{figure}_bucket{BUCKET % le}": f"0+{n}x60" for le, n in (("1", 9), ("5", 10), ("+Inf", 10))}
    for name, figure in (
        ("SoliloquySlowFirstCharacter", "first_character_seconds"),
        ("SoliloquyHaltingText", "flush_gap_seconds"),
        ("SoliloquyEventLoopLate", "event_loop_lag_seconds"),
    )
}
CALM = UP | {
    'soliloquy_ready{instance="a"}': "1x60",
    'soliloquy_http_requests_total{instance="a", status="200"}': "0+97x60",
    'soliloquy_http_requests_total{instance="a", status="503"}': "0+9x60",
    'soliloquy_http_requests_total{instance="a", status="500"}': "0+3x60",
    'soliloquy_stream_errors_total{instance="a"}': "0x60",
    'soliloquy_engine_failures_total{instance="a"}': "1x60",
    'soliloquy_rejections_total{instance="a", reason="queue_full"}': "0x40 9x20",
    'soliloquy_first_character_seconds_bucket{instance="a", le="0.1"}': "0+9x60",
    'soliloquy_first_character_seconds_bucket{instance="a", le="+Inf"}': "0+9x60",
}
SUFFIXES = {"counter": [""], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}


@pytest.fixture(scope="module")
def app(folder: Path) -> FastAPI:
    """An app whose engine is not started."""
    return create_app(ServerSettings(checkpoint=folder, device="cpu"))


def samples(text: str) -> Iterator[Sample]:
    """What `/metrics` said."""
    for family in text_string_to_metric_families(text):
        yield from family.samples


def figures(metrics: Metrics) -> dict[str, float]:
    """What has no labels."""
    return {one.name: one.value for one in samples(generate_latest(metrics.registry).decode()) if not one.labels}


def exposed(app: FastAPI) -> set[str]:
    """All names that can be asked for, of what has not been counted yet too."""
    names = set()
    for family in text_string_to_metric_families(ask(app, "/metrics").text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        names |= {name + suffix for suffix in SUFFIXES[family.type]}
    return {name for name in names if not name.endswith("_created")}


def ask(app: FastAPI, url: str, method: str = "GET") -> httpx.Response:
    async def one() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            return await client.request(method, f"http://x{url}")

    return asyncio.run(one())


def expressions(value: Any) -> Iterator[str]:
    """The queries of a dashboard, as Prometheus would be asked."""
    if isinstance(value, dict):
        if isinstance(value.get("expr"), str):
            yield value["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
        for one in value.values():
            yield from expressions(one)
    elif isinstance(value, list):
        for one in value:
            yield from expressions(one)


def dashboard() -> list[str]:
    return list(expressions(json.loads((DEPLOY / "grafana" / "dashboards" / "soliloquy.json").read_text())))


def test_sums_over_engines_do_not_fall_when_engines_go(folder: Path) -> None:
    service = Service(ServerSettings(checkpoint=folder, device="cpu"))
    metrics = Metrics(service)
    first = service.current
    first.engine.steps = 10
    first.engine.failures = 1
    assert figures(metrics)["soliloquy_engine_steps_total"] == 10
    service.current = replace(first, engine=Engine(tiny_generator(), 4, 100))
    service._retired = [first]
    first.engine.steps = 11
    service.current.engine.steps = 3
    assert figures(metrics)["soliloquy_engine_steps_total"] == 14
    gone = weakref.ref(first.engine)
    first.engine.start()
    first.engine.close()
    first.engine.steps = 12  # which nobody asks for before it is gone
    service.release()
    del first
    gc.collect()
    assert gone() is None  # with the weights that it had
    service.current.engine.steps = 4
    now = figures(metrics)
    assert now["soliloquy_engine_steps_total"] == 16
    assert now["soliloquy_engine_failures_total"] == 1
    assert now["soliloquy_slots"] == 4


def test_each_app_counts_for_itself(app: FastAPI, folder: Path) -> None:
    other = create_app(ServerSettings(checkpoint=folder, device="cpu"))
    assert ask(app, "/info").status_code == 200
    assert 'route="/info"' in ask(app, "/metrics").text
    assert 'route="/info"' not in ask(other, "/metrics").text


@settings(max_examples=50)
@given(st.text(st.characters(codec="utf-8"), max_size=20), st.from_regex(r"[A-Z]{1,9}", fullmatch=True))
def test_no_client_can_make_a_new_label(app: FastAPI, path: str, method: str) -> None:
    for url in (f"/{path}", f"/static/{path}", f"/v1/models/{path}"):
        ask(app, quote(url), method)
    exported = list(samples(ask(app, "/metrics").text))
    routes, methods, reasons = (
        {one.labels[name] for one in exported if name in one.labels} for name in ("route", "method", "reason")
    )
    assert routes <= ROUTES
    assert methods <= {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "_OTHER"}
    assert reasons == set(REFUSAL_REASONS)


def test_dashboard_and_alerts_use_all_metrics_and_no_others(app: FastAPI) -> None:
    names = exposed(app)
    alerts = (DEPLOY / "alerts.yml").read_text()
    used: set[str] = set()
    for text in [*dashboard(), alerts]:
        used |= set(NAME.findall(text))
    assert used <= names
    own = {name for name in names if name.startswith("soliloquy_")}
    assert {name for name in own if not name.endswith(("_sum", "_count"))} <= used, "exported, but on no panel"
    assert set(re.findall(r'reason="(\w+)"', alerts)) <= set(REFUSAL_REASONS)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this machine")
def test_prometheus_understands_its_files_and_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{i}", "expr": one} for i, one in enumerate(dashboard())]
    (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    commands: list[list[str | Path]] = [
        ["config", DEPLOY / "prometheus.yml"],
        ["rules", DEPLOY / "alerts.yml", tmp_path / "panels.yml"],
    ]
    for command in commands:
        done = subprocess.run(["promtool", "check", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this machine")
def test_each_alert_fires_when_it_must_and_only_then(tmp_path: Path) -> None:
    tests = [
        {
            "name": name or "calm",
            "interval": "15s",
            "input_series": [{"series": series, "values": values} for series, values in given.items()],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": "14m",
                    "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1}] if name else [],
                }
            ],
        }
        for name, given in [*ALERTS.items(), ("", CALM)]
    ]
    content = {"rule_files": [str(DEPLOY / "alerts.yml")], "evaluation_interval": "15s", "tests": tests}
    (tmp_path / "tests.yml").write_text(json.dumps(content))
    command = ["promtool", "test", "rules", str(tmp_path / "tests.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(ALERTS) == set(re.findall(r"alert: (\w+)", (DEPLOY / "alerts.yml").read_text()))
