"""The app on Ray Serve: replicas on several machines, more of them under load.

Owns how many replicas run, on what, and when one is unhealthy. Knows nothing of how requests are answered: each
replica is the app as `python -m app` serves it, and shares nothing with the others.

`python -m deploy.ray_serve --max_replicas=4`, or `serve run deploy.ray_serve:app max_replicas=4`. Settings are
those of `python -m app` and a few more, by the same environment variables, read where this is started.
"""

import logging.config
import os
import signal
import sys
from contextlib import suppress
from typing import Any

import ray
from fastapi import FastAPI
from pydantic import Field, ValidationInfo, field_validator
from ray import serve
from ray.serve import Application
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.main import create_app
from app.observability import log
from app.server.lifecycle import SWITCH_SECONDS
from app.settings import ServerSettings, listed
from model.checkpoint import read_checkpoint
from model.cli import run
from model.errors import EngineFailedError, InputError

NAME = "soliloquy"
TARGET_LOAD = 0.75  # part of the slots taken, on average, at which another replica is started: before queues fill
EXTRA_REQUESTS = 32  # beside those that generate, so that a full replica can still refuse, and answer health checks
HEALTH_SECONDS = 2  # between checks; the third that fails replaces the replica


class RaySettings(ServerSettings):
    """Serve a checkpoint by replicas on Ray; `threads` is `replica_cpus` if not given."""

    model_config = ServerSettings.model_config | {"cli_prog_name": "python -m deploy.ray_serve"}

    min_replicas: int = Field(1, ge=1)
    """Replicas that always run"""
    max_replicas: int | None = None
    """Replicas that may run when many read; as min_replicas if not given"""
    replica_cpus: float = Field(1.0, gt=0)
    """CPU cores for each replica"""
    replica_gpus: float = Field(0.0, ge=0)
    """GPUs for each replica; a fraction shares one"""

    @field_validator("max_replicas")
    @classmethod
    def check_at_least_min_replicas(cls, max_replicas: int | None, info: ValidationInfo) -> int | None:
        """Refuse a maximum below the minimum."""
        min_replicas = info.data.get("min_replicas", 1)
        if max_replicas is not None and max_replicas < min_replicas:
            raise ValueError(f"must be at least min_replicas, {min_replicas}")
        return max_replicas

    @property
    def of_replica(self) -> ServerSettings:
        """The settings of each replica's app."""
        content = {name: getattr(self, name) for name in ServerSettings.model_fields}
        return ServerSettings(**content | {"threads": self.threads or max(1, int(self.replica_cpus))})


class Replica:
    """One process with a model of its own."""

    def __init__(self, settings: ServerSettings) -> None:
        sys.setswitchinterval(SWITCH_SECONDS)
        logging.config.dictConfig(log.configuration(settings))
        self._app = create_app(settings)
        if settings.trusted_proxies is not None:
            self._app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=listed(settings.trusted_proxies))

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The app, which Ray Serve starts and ends with the replica."""
        return self._app

    def check_health(self) -> None:
        """Called by Ray Serve every HEALTH_SECONDS.

        Raises:
            EngineFailedError: this replica cannot generate any more.
        """
        if not self._app.state.service.current.engine.ready:
            raise EngineFailedError("the engine has stopped")


def app(arguments: dict[str, Any]) -> Application:
    """What `serve run` deploys; arguments override the environment.

    Raises:
        InputError: an argument that is no setting.
    """
    for name in arguments.keys() - RaySettings.model_fields.keys():
        raise InputError(name, "is not a setting; check its spelling")
    return application(RaySettings(**arguments))


def application(settings: RaySettings) -> Application:
    """The app as a deployment. The checkpoint is read by each replica."""
    max_requests = settings.slots + settings.queue_size + EXTRA_REQUESTS
    deployment = serve.deployment(
        name=NAME,
        ray_actor_options={"num_cpus": settings.replica_cpus, "num_gpus": settings.replica_gpus},
        autoscaling_config={
            "min_replicas": settings.min_replicas,
            "max_replicas": settings.max_replicas or settings.min_replicas,
            "target_ongoing_requests": TARGET_LOAD * settings.slots,
        },
        max_ongoing_requests=max_requests,
        max_queued_requests=max_requests,
        health_check_period_s=HEALTH_SECONDS,
        graceful_shutdown_timeout_s=settings.drain_seconds,
        logging_config={"enable_access_log": False},  # the app has its own
    )
    return deployment(serve.ingress()(Replica)).bind(settings.of_replica)


def start(settings: RaySettings) -> None:
    """Serve until a signal to stop, on the cluster of RAY_ADDRESS or on this machine alone; then drain.

    Raises:
        CheckpointError: the checkpoint cannot be read; raised before Ray is started.
        EngineFailedError: no replica can start.
    """
    read_checkpoint(settings.checkpoint)
    address = os.environ.get("RAY_ADDRESS", "local")
    os.environ["FORWARDED_ALLOW_IPS"] = (
        ""  # for Ray's own uvicorn: which proxies are trusted is decided in the replicas
    )
    ray.init(address, include_dashboard=False if address == "local" else None)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        options = {"host": settings.host, "port": settings.port, "keep_alive_timeout_s": settings.idle_timeout}
        serve.start(http_options=options)
        try:
            serve.run(application(settings), name=NAME, blocking=True)
        finally:
            with suppress(TimeoutError):  # Ray waits for a minute, however long draining takes
                serve.delete(NAME)
    except KeyboardInterrupt:
        pass  # a signal to stop
    except RuntimeError as error:
        raise EngineFailedError(f"{error} What the replicas say is above.") from error
    finally:
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(run(RaySettings, start, sys.argv[1:]))
