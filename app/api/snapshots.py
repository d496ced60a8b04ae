"""What a client may ask of the snapshots: the same prompt and seed, written by each of them."""

from pydantic import Field

from app.api.schemas import Asked
from app.serving.snapshots import SnapshotText
from model.sampling.noise import SEED_LIMIT

MAX_SNAPSHOT_CHARACTERS = 1000


class SnapshotQuery(Asked, strict=False, extra="ignore"):
    """The same fields as `/generate`, for one short text; what else is in the URL is not for us."""

    max_new_tokens: int = Field(300, ge=1, le=MAX_SNAPSHOT_CHARACTERS)
    """Characters that each snapshot writes."""
    seed: int = Field(1337, ge=0, lt=SEED_LIMIT)
    """The same seed gives the same text."""

    def wanted(self) -> SnapshotText:
        """The text that each snapshot is to write."""
        return SnapshotText(self.prompt, self.seed, self.max_new_tokens, self.sampling())
