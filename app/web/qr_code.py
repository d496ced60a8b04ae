"""QR codes of links, for the picture that the page makes of a text.

Knows nothing of what a link leads to. The page draws the code; only its dark and light modules come from here.
"""

from typing import Annotated

import segno
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

MAX_LINK = 600  # characters: a code of more has modules too small for the picture

router = APIRouter()


class QrCodeRequest(BaseModel):
    """The link that is drawn."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: Annotated[str, Field(min_length=1, max_length=MAX_LINK)]


class QrCode(BaseModel):
    """The code's rows from top to bottom, without a margin: 1 for a dark module, 0 for a light one."""

    rows: list[str]


@router.post("/qr", include_in_schema=False)
def qr_code(request: QrCodeRequest, response: Response) -> QrCode:
    """The QR code of a link; a POST, as links hold texts, which belong into no log."""
    response.headers["Cache-Control"] = "no-store"
    code = segno.make_qr(request.text, error="l", boost_error=False)
    return QrCode(rows=["".join(str(module) for module in row) for row in code.matrix])
