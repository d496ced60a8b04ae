"""The weights from which a page writes texts on the reader's own device. Owns that they are made once, and when.

They are read from the checkpoint's folder again: the engine holds them in another form, and most servers are never
asked for them.
"""

import asyncio

from fastapi import APIRouter, Response
from starlette.exceptions import HTTPException

from app.serving.service import Service
from model.browser_weights import browser_weights
from model.checkpoint import read_checkpoint
from model.errors import CheckpointError

CACHE_SECONDS = 365 * 24 * 3600  # the address names what is in the file
SIZE_HEADER = "X-Weights-Bytes"  # the length of what a page reads, also where a proxy compresses it


class BrowserWeights:
    """The file of the checkpoint that is served, kept in memory from the first request on."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._identity = ""
        self._missing = (
            ""  # an identity whose weights are not in the folder, so that nobody has it read again and again
        )
        self._file = b""
        self._lock = asyncio.Lock()  # so that a class that opens the page makes it once

    async def file_of(self, identity: str) -> bytes | None:
        """The file of the checkpoint with this identity; None if another one is served, or lies in the folder."""
        if identity != self._service.current.card.identity:
            return None
        async with self._lock:
            if identity == self._missing:
                return None
            if identity != self._identity:
                file = await asyncio.to_thread(self._make, identity)
                if file is None:
                    self._missing = identity
                    return None
                self._file = file
                self._identity = identity
            return self._file

    def _make(self, identity: str) -> bytes | None:
        try:
            checkpoint = read_checkpoint(self._service.settings.checkpoint, with_index=False)
        except CheckpointError:  # it is being replaced, or is gone: what is served is in memory only
            return None
        return browser_weights(checkpoint) if checkpoint.identity == identity else None


def make_router(weights: BrowserWeights) -> APIRouter:
    """The route from which the page gets them."""
    router = APIRouter()

    @router.get("/weights/{identity}", include_in_schema=False)
    async def get_weights(identity: str) -> Response:
        """The file of weights of the checkpoint with this identity; 404 where that is not served any more."""
        file = await weights.file_of(identity)
        if file is None:
            raise HTTPException(404, "this server has no weights of that checkpoint")
        headers = {"Cache-Control": f"private, max-age={CACHE_SECONDS}, immutable", SIZE_HEADER: str(len(file))}
        return Response(file, headers=headers, media_type="application/octet-stream")

    return router
