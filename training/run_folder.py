"""A run's checkpoint folder: the best weights, the state to resume from, and one run at a time.

NAME/             the checkpoint (`model.checkpoint`), and resume/state.pt; nothing else in it is touched
NAME-snapshots/   a checkpoint for each snapshot, named by its step

Both are replaced in one step (`model.atomic_files`): a kill at any moment leaves the weights and the state of one
evaluation, whole. What the state holds, and how it is read, is `training.resume`'s.
"""

import dataclasses
import errno
import io
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.atomic_files import STAGE, FolderWriter, names_in, replacing
from model.checkpoint import Checkpoint, TrainingRecord, has_checkpoint, write_checkpoint
from model.errors import CheckpointError, InputError, SaveError
from model.network import GPT
from model.vocabulary import Vocabulary
from model.weights import BFLOAT16, from_tensors
from training.resume import NOTHING_TO_RESUME, RESUME_FILE, has_state, recovery_hint


class RunFolder:
    """The folder of a run, locked for this process until `close`.

    Raises:
        InputError: another run is writing there, or the folder is not empty and `resume` is not set.
        CheckpointError: `resume` is set, and there is nothing to resume.
        SaveError: it cannot be made.
    """

    def __init__(self, folder: Path, resume: bool, snapshots: bool = False) -> None:
        self.folder = folder
        absolute = Path(os.path.abspath(folder))
        self.snapshots = absolute.parent / f"{absolute.name}-snapshots"
        try:
            if not (self.folder / STAGE).is_dir():
                # Checked before anything is created. Where a run has written before, the lock is tried first, so
                # that the message names another run that is writing now.
                self._check(resume, snapshots)
            self._writer = FolderWriter(self.folder)
            try:
                self._check(resume, snapshots)
            except BaseException:  # a stop by the keyboard, too, must not leave the lock taken
                self.close()
                raise
        except BlockingIOError:
            raise InputError(
                "out_dir", f"another run is writing to {folder}; stop it or use another folder"
            ) from None
        except OSError as error:
            raise SaveError(f"out_dir: {error.filename or folder} cannot be written ({error.strerror})") from error

    def _check(self, resume: bool, snapshots: bool) -> None:
        """Refuse a folder that this run must not write to."""
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError("out_dir", f"{self.folder} is a file; name a folder")
        if resume:
            if not has_state(self.folder):
                raise CheckpointError(f"{self.folder / RESUME_FILE}: {NOTHING_TO_RESUME}")
            return
        if names_in(self.folder) or has_checkpoint(self.folder):
            remedy = "use another folder"
            if has_state(self.folder):
                remedy += ", or --resume=True to go on with its run"
            raise InputError("out_dir", f"{self.folder} already exists, and is not empty; {remedy}")
        # A file in the place of the snapshots' folder is not refused: it costs only the snapshots.
        if snapshots and self.snapshots.is_dir() and names_in(self.snapshots):
            raise InputError(
                "snapshots", f"{self.snapshots} has those of another run; move them, or use another --out_dir"
            )

    def close(self) -> None:
        """Let another run write here."""
        self._writer.close()

    def save(self, state: dict[str, Any], best: Checkpoint | None) -> None:
        """Replace the state, and the weights by those of `best` if given.

        Raises:
            SaveError: the disk is full or the like; what was there stays.
        """
        try:
            with self._writer.replacing() as new:
                if best is not None:
                    write_checkpoint(new, best, BFLOAT16)
                (new / RESUME_FILE).parent.mkdir()
                buffer = io.BytesIO()  # so that a full disk is an OSError, not one of PyTorch's own
                torch.save(state, buffer)
                (new / RESUME_FILE).write_bytes(buffer.getbuffer())
        except OSError as error:
            reason = error.strerror or str(error)
            raise SaveError(
                f"{self.folder}: could not be saved ({reason}): make room, then "
                f"{recovery_hint(has_state(self.folder))}"
            ) from error

    def snapshot(self, step: int, checkpoint: Checkpoint) -> None:
        """Write a checkpoint into the snapshots' folder.

        Raises:
            OSError: the disk is full or the like, or there is something else of that name.
        """
        folder = self.snapshots / f"{step:06d}"
        if names_in(folder) and not has_checkpoint(folder):
            raise FileExistsError(errno.EEXIST, "has other files in it", str(folder))
        with replacing(folder) as new:
            write_checkpoint(new, checkpoint, BFLOAT16)


def checkpoint_of(network: GPT, vocabulary: Vocabulary, record: TrainingRecord) -> Checkpoint:
    """The network as it is now, with the scale of its logits. It refers to the live tensors."""
    config = dataclasses.replace(network.config, logit_scale=network.logit_scale)
    return Checkpoint(config, vocabulary, from_tensors(network.state_dict()), record)


def snapshot_steps(max_iters: int, count: int) -> set[int]:
    """`count` steps from the first to the last, spaced evenly on a logarithmic scale: most changes early."""
    if not count:
        return set()
    return {round(step) for step in np.geomspace(1, max_iters + 1, count) - 1}


def current_commit() -> str | None:
    """The commit of this source tree, marked if it had changes; None outside of git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        described = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.decode("utf-8", "backslashreplace").strip()
