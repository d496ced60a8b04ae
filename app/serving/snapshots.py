"""The snapshots of a training run beside its checkpoint, each a model that writes one short text.

They are the checkpoints in NAME-snapshots, beside the checkpoint NAME that is served. They are read when one is
first wanted, and write one after another in a thread of their own (`Service.snapshots`): texts being streamed do
not wait for them.
"""

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.cancellation import CancelCheck
from model.checkpoint import Checkpoint, has_checkpoint, read_checkpoint
from model.device import Numerics
from model.generation.generator import Generator, load_generator
from model.generation.sequence import make_sequences
from model.sampling.sampler import Sampling


@dataclass(frozen=True)
class SnapshotText:
    """The one text that each snapshot is to write; an empty prompt is the snapshot's own default."""

    prompt: str
    seed: int
    max_new_tokens: int
    sampling: Sampling


@dataclass(frozen=True)
class Snapshot:
    """The weights after so many steps of training, ready to write."""

    step: int
    checkpoint: Checkpoint
    generator: Generator

    def write(self, wanted: SnapshotText, check_cancelled: CancelCheck) -> str:
        """One text; `check_cancelled` is called with each piece of it.

        Raises:
            UnknownCharactersError: the prompt has characters outside the snapshot's vocabulary.
        """
        [stream] = make_sequences(
            self.checkpoint.vocabulary,
            wanted.sampling,
            prompt=wanted.prompt or self.checkpoint.vocabulary.default_prompt,
            seed=wanted.seed,
            num_samples=1,
            max_new_tokens=wanted.max_new_tokens,
            stop=(),
        )
        written = []
        with closing(self.generator.write(stream)) as pieces:  # its slot is free, however this ends
            for piece in pieces:
                written.append(piece.text)
                check_cancelled()
        return "".join(written)


class Gallery:
    """The snapshots beside a checkpoint folder; `steps` lists them. One thread at a time may write."""

    def __init__(self, folder: Path, numerics: Numerics) -> None:
        folder = Path(os.path.abspath(folder))
        self._folder = folder.parent / f"{folder.name}-snapshots"
        self._numerics = numerics
        names = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        steps = sorted(int(name) for name in names if name.isdecimal())
        complete = [step for step in steps if has_checkpoint(self._folder / _name(step))]
        self.steps = [step for step in complete if _name(step) in names]
        self._snapshots: list[Snapshot] = []

    def write(self, wanted: SnapshotText, check_cancelled: CancelCheck) -> dict[str, Any]:
        """What each snapshot writes, and the loss curve of their run; `check_cancelled` is called often.

        Raises:
            CheckpointError, UnknownCharactersError: a snapshot cannot be read, or cannot read the prompt.
        """
        for step in self.steps[len(self._snapshots) :]:
            check_cancelled()
            self._snapshots.append(self._load(step))
        texts = [{"step": one.step, "text": one.write(wanted, check_cancelled)} for one in self._snapshots]
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
