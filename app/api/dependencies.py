"""Dependencies of the routes."""

from typing import Annotated

from fastapi import Depends, Request

from app.serving.service import Service


async def get_service(request: Request) -> Service:
    """The service of this app. A coroutine, because FastAPI runs a plain function in a thread."""
    service: Service = request.app.state.service
    return service


ServiceDependency = Annotated[Service, Depends(get_service)]
