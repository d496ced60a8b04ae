"""A run's checkpoint folder: the best weights, the state to resume from, and one run at a time.

NAME/             the checkpoint (`model.checkpoint`), and resume/state.pt
NAME-snapshots/   a checkpoint for each snapshot, named by its step
.NAME.lock        held while a run writes here; free again when its process ends, however it ends
"""

import io
import pickle
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from model.checkpoint import Checkpoint, write_checkpoint
from model.errors import CheckpointError, InputError, SaveError
from model.files import recover, replacing

RESUME_FILE = Path("resume") / "state.pt"


class RunFolder:
    """Opened for writing by one process at a time; `close` lets the next one in.

    Raises:
        InputError: another run is writing there, or it holds something and `resume` is not set.
        SaveError: it cannot be made.
    """

    def __init__(self, folder: Path, resume: bool) -> None:
        self.folder = folder.absolute()
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.folder.with_name(f".{self.folder.name}.lock"), timeout=0)
            self._lock.acquire()
        except Timeout:
            raise InputError(
                "out_dir", f"another run is writing to {folder}; stop it or use another folder"
            ) from None
        except OSError as error:
            raise SaveError(f"out_dir: {folder} cannot be written ({error.strerror})") from error
        recover(self.folder)
        if not resume and self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            self.close()
            raise InputError(
                "out_dir",
                f"{folder} already exists; use another folder, or --resume=True to go on with its run",
            )

    def close(self) -> None:
        """Let another run write here."""
        self._lock.release()

    def save(self, state: dict[str, Any], best: Checkpoint | None) -> None:
        """Replace the folder: `best` weights if given, else the ones that were there, and the state.

        Raises:
            SaveError: the disk is full or the like; what was there stays.
        """
        try:
            with replacing(self.folder) as new:
                if best is not None:
                    write_checkpoint(new, best, torch.bfloat16)
                elif self.folder.exists():
                    for path in self.folder.iterdir():
                        if path.is_file():
                            shutil.copy2(path, new)
                (new / RESUME_FILE).parent.mkdir()
                buffer = io.BytesIO()  # so that a full disk is an OSError, not one of PyTorch's own
                torch.save(state, buffer)
                (new / RESUME_FILE).write_bytes(buffer.getbuffer())
        except OSError as error:
            raise SaveError(
                f"{self.folder.name}: could not be saved ({error.strerror or error}); what was saved before is "
                "whole: make room, then go on with the same command and --resume=True"
            ) from error

    def snapshot(self, step: int, checkpoint: Checkpoint) -> None:
        """Write a checkpoint beside the folder, to look back at.

        Raises:
            OSError: the disk is full or the like.
        """
        with replacing(self.folder.with_name(f"{self.folder.name}-snapshots") / f"{step:06d}") as new:
            write_checkpoint(new, checkpoint, torch.bfloat16)


def load_state(folder: Path, device: torch.device) -> dict[str, Any]:
    """What `RunFolder.save` was given.

    Raises:
        CheckpointError: it is not there or cannot be read.
    """
    path = recover(folder) / RESUME_FILE
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is nothing to resume; train without --resume") from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: cannot be read ({reason}); train without --resume") from error
    return state


def snapshot_steps(max_iters: int, count: int) -> set[int]:
    """The beginning, the end, and steps between them at equal ratios; none for a `count` of 0."""
    return {round(step) for step in np.geomspace(1, max_iters + 1, count) - 1} if count else set()


def current_commit() -> str | None:
    """The commit of this source tree, marked if it had changes; None outside of git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        described = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.decode("utf-8", "backslashreplace").strip()
