"""The snapshots of a training run: one short text by each of them. Owns where they are and how they are loaded.

They are the checkpoints in NAME-snapshots, beside the checkpoint NAME that is served. They are read at the first
request for them, and generate one after another in a thread of their own (`Service.snapshots`), so that streams do
not wait for them. Knows nothing of HTTP.
"""

import os
from collections.abc import Iterator
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
    """What each snapshot is to write; an empty prompt stands for the snapshot's own default."""

    prompt: str
    seed: int
    max_new_tokens: int
    sampling: Sampling


@dataclass(frozen=True)
class Snapshot:
    """The model after `step` steps of training, ready to write."""

    step: int
    checkpoint: Checkpoint
    generator: Generator

    def generate(self, wanted: SnapshotText, check_cancelled: CancelCheck) -> str:
        """The text; `check_cancelled` is called after each chunk of it, and raises when the work is to end.

        Raises:
            UnknownCharactersError: the prompt has characters outside the snapshot's vocabulary.
        """
        [sequence] = make_sequences(
            self.checkpoint.vocabulary,
            wanted.sampling,
            prompt=wanted.prompt or self.checkpoint.vocabulary.default_prompt,
            seed=wanted.seed,
            num_samples=1,
            max_new_tokens=wanted.max_new_tokens,
            stop=(),
        )
        texts: list[str] = []
        with closing(self.generator.write(sequence)) as chunks:  # which frees its slot, however this ends
            for chunk in chunks:
                texts.append(chunk.text)
                check_cancelled()
        return "".join(texts)


class SnapshotStore:
    """The snapshots beside a checkpoint folder; `steps` lists them. One thread at a time may use it."""

    def __init__(self, folder: Path, numerics: Numerics) -> None:
        folder = Path(os.path.abspath(folder))
        self._folder = folder.parent / f"{folder.name}-snapshots"
        self._numerics = numerics
        self.steps = self._find_steps()
        self._snapshots: list[Snapshot] = []  # those that have been read, in the order of `steps`

    def _find_steps(self) -> list[int]:
        """The steps of all complete snapshots, in ascending order."""
        if not self._folder.is_dir():
            return []
        names = {path.name for path in self._folder.iterdir()}
        steps = sorted(int(name) for name in names if name.isdecimal())
        named = [step for step in steps if _name(step) in names]  # not, say, `7` for `000007`
        return [step for step in named if has_checkpoint(self._folder / _name(step))]

    def generate(self, wanted: SnapshotText, check_cancelled: CancelCheck) -> dict[str, Any]:
        """The JSON fields of the answer: what each snapshot writes, and the loss curve of their training run.

        `check_cancelled` is called often, and raises when the work is to end.

        Raises:
            CheckpointError, UnknownCharactersError: a snapshot cannot be read, or cannot read the prompt.
        """
        for step in self.steps[len(self._snapshots) :]:
            check_cancelled()
            self._snapshots.append(self._load(step))
        texts = [{"step": one.step, "text": one.generate(wanted, check_cancelled)} for one in self._snapshots]
        if not texts:
            return {"parameters": None, "curve": [], "snapshots": []}
        return run_of(self._snapshots[-1].checkpoint) | {"snapshots": texts}

    def checkpoints(self) -> Iterator[tuple[int, Checkpoint]]:
        """Each snapshot's step and checkpoint, read anew.

        Raises:
            CheckpointError: one cannot be read.
        """
        for step in self.steps:
            yield step, read_checkpoint(self._folder / _name(step))

    def _load(self, step: int) -> Snapshot:
        """Read one snapshot."""
        checkpoint = read_checkpoint(self._folder / _name(step))
        return Snapshot(step, checkpoint, load_generator(checkpoint, self._numerics, slots=1, threads=1))


def run_of(last: Checkpoint) -> dict[str, Any]:
    """The JSON fields that tell of a training run, by its last snapshot."""
    curve = [{key: point[key] for key in ("step", "train", "val")} for point in last.training.get("curve", [])]
    return {"parameters": last.parameter_count, "curve": curve}


def _name(step: int) -> str:
    """The name of a snapshot's folder."""
    return f"{step:06d}"
