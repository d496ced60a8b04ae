"""What FastAPI hands to the routes."""

from typing import Annotated

from fastapi import Depends, Request

from app.serving.service import Service


async def get_service(request: Request) -> Service:
    """The one service of this app; not in a thread, which a plain function would be."""
    service: Service = request.app.state.service
    return service


ServiceDependency = Annotated[Service, Depends(get_service)]
