"""The query and the answer of `GET /snapshots`: what every snapshot of a training run writes after a prompt.

Knows nothing of how snapshots are kept or run (`app/serving/snapshots.py`).
"""

from pydantic import Field

from app.api.info import LossPoint
from app.api.logprobs import AnswerModel
from app.api.schemas import SamplingFields
from app.serving.snapshots import SnapshotText
from model.sampling.noise import SEED_LIMIT

MAX_SNAPSHOT_CHARACTERS = 1000


class SnapshotQuery(SamplingFields, strict=False, extra="ignore"):
    """Fields of `/generate`, for one short text; unknown ones in the URL are ignored."""

    max_new_tokens: int = Field(300, ge=1, le=MAX_SNAPSHOT_CHARACTERS)
    """Characters that each snapshot writes."""
    seed: int = Field(1337, ge=0, lt=SEED_LIMIT)
    """The same seed gives the same text."""

    def text(self) -> SnapshotText:
        """The text that each snapshot is to write."""
        return SnapshotText(self.prompt, self.seed, self.max_new_tokens, self.sampling())


class SnapshotSample(AnswerModel):
    """What one snapshot writes."""

    step: int
    """Of the training run."""
    text: str


class Snapshots(AnswerModel):
    """The same prompt and seed at each snapshot; nothing if there are none."""

    parameters: int | None
    """Of the network of that run, which may be smaller than the one that is served."""
    curve: list[LossPoint]
    """The loss curve of that run."""
    snapshots: list[SnapshotSample]
