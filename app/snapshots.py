"""From gibberish to verse: the same prompt and seed, written by each snapshot of a training run.

Snapshots are the checkpoints in NAME-snapshots, beside the checkpoint NAME that is served. They are read at the
first request, and write one after another in a thread of their own: texts being streamed do not wait for them.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from app.protection import is_head
from app.schemas import Asked
from model.checkpoint import Checkpoint, read_checkpoint
from model.device import Numerics
from model.errors import QueueFullError
from model.generator import Generator, load_generator
from model.noise import SEED_LIMIT
from model.stream import make_streams

router = APIRouter()

WAITING = 4
MOST_CHARACTERS = 1000


class SnapshotQuery(Asked, strict=False, extra="ignore"):
    """The same fields as `/generate`, for one short text; what else is in the URL is not for us."""

    max_new_tokens: int = Field(300, ge=1, le=MOST_CHARACTERS)
    """Characters that each snapshot writes."""
    seed: int = Field(1337, ge=0, lt=SEED_LIMIT)
    """The same seed gives the same text."""


@dataclass(frozen=True)
class Snapshot:
    """The weights after so many steps of training, ready to write."""

    step: int
    checkpoint: Checkpoint
    generator: Generator

    def write(self, query: SnapshotQuery) -> str:
        """One text.

        Raises:
            UnknownCharactersError: the prompt has characters outside the snapshot's vocabulary.
        """
        [stream] = make_streams(
            self.checkpoint.vocabulary,
            query.sampling(),
            prompt=query.prompt or "\n",
            seed=query.seed,
            num_samples=1,
            max_new_tokens=query.max_new_tokens,
            stop=(),
        )
        return "".join(piece.text for piece in self.generator.write(stream))


class Gallery:
    """The snapshots beside a checkpoint folder; `steps` lists them."""

    def __init__(self, folder: Path, numerics: Numerics) -> None:
        self._folder = folder.with_name(f"{folder.name}-snapshots")
        self._numerics = numerics
        names = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        steps = sorted(int(name) for name in names if name.isdecimal())
        self.steps = [step for step in steps if _name(step) in names]
        self._snapshots: list[Snapshot] = []
        self._turn = asyncio.Lock()
        self._asked = 0

    async def write(self, query: SnapshotQuery) -> dict[str, Any]:
        """What each snapshot writes, and the loss curve of their run.

        Raises:
            QueueFullError: too many wait already.
            CheckpointError, UnknownCharactersError: a snapshot cannot be read, or cannot read the prompt.
        """
        if self._asked >= WAITING:
            raise QueueFullError("the snapshots are busy", retry_after=5)
        self._asked += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(self._write, query)
        finally:
            self._asked -= 1

    def _write(self, query: SnapshotQuery) -> dict[str, Any]:
        if not self._snapshots:
            self._snapshots = [self._load(step) for step in self.steps]
        texts = [{"step": one.step, "text": one.write(query)} for one in self._snapshots]
        if not texts:
            return {"parameters": None, "curve": [], "snapshots": []}
        last = self._snapshots[-1].checkpoint
        curve = [{key: point[key] for key in ("step", "train", "val")} for point in last.training.get("curve", [])]
        return {"parameters": last.parameter_count, "curve": curve, "snapshots": texts}

    def _load(self, step: int) -> Snapshot:
        checkpoint = read_checkpoint(self._folder / _name(step))
        return Snapshot(step, checkpoint, load_generator(checkpoint, self._numerics, slots=1, threads=1))


def _name(step: int) -> str:
    """Of a snapshot's folder."""
    return f"{step:06d}"


@router.get("/snapshots", response_model=dict[str, Any])
async def get_snapshots(
    query: Annotated[SnapshotQuery, Query()], request: Request
) -> dict[str, Any] | StreamingResponse:
    """The same prompt and seed at each snapshot of a training run; none if there are none."""
    if is_head(request):  # no text is written for nobody
        return StreamingResponse(iter(()), media_type="application/json")
    gallery: Gallery = request.app.state.service.current.gallery
    return await gallery.write(query)
