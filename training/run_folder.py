"""A run's checkpoint folder: the best weights, the state to resume from, and one run at a time.

NAME/             the checkpoint (`model.checkpoint`), and resume/state.pt; nothing else in it is touched
NAME-snapshots/   a checkpoint for each snapshot, named by its step
"""

import errno
import io
import os
import pickle
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.atomic_files import STAGE, FolderReader, FolderWriter, check_file, names_in, read_whole, replacing
from model.checkpoint import Checkpoint, has_checkpoint, write_checkpoint
from model.errors import CheckpointError, InputError, SaveError

RESUME_FILE = "resume/state.pt"
NOTHING_TO_RESUME = "there is nothing to resume; begin a run without --resume, in a folder of its own"
MAX_STATE_BYTES = 1 << 40  # bytes
STATE_KINDS = {"architecture": str, "weights": dict, "optimizers": list, "progress": dict}


class RunFolder:
    """Opened for writing by one process at a time; `close` lets the next one in.

    Raises:
        InputError: another run is writing there, or it holds something and `resume` is not set.
        CheckpointError: `resume` is set, and there is nothing to resume.
        SaveError: it cannot be made.
    """

    def __init__(self, folder: Path, resume: bool, snapshots: bool = False) -> None:
        self.folder = folder
        absolute = Path(os.path.abspath(folder))
        self.snapshots = absolute.parent / f"{absolute.name}-snapshots"
        try:
            if not (self.folder / STAGE).is_dir():  # else whether another run is writing comes first
                self._check(resume, snapshots)  # before anything is made
            self._writer = FolderWriter(self.folder)
            try:
                self._check(resume, snapshots)
            except BaseException:
                self.close()
                raise
        except BlockingIOError:
            raise InputError(
                "out_dir", f"another run is writing to {folder}; stop it or use another folder"
            ) from None
        except OSError as error:
            raise SaveError(f"out_dir: {error.filename or folder} cannot be written ({error.strerror})") from error

    def _check(self, resume: bool, snapshots: bool) -> None:
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
        if snapshots and self.snapshots.is_dir() and names_in(self.snapshots):  # a file costs only the snapshots
            raise InputError(
                "snapshots", f"{self.snapshots} has those of another run; move them, or use another --out_dir"
            )

    def close(self) -> None:
        """Let another run write here."""
        self._writer.close()

    def save(self, state: dict[str, Any], best: Checkpoint | None) -> None:
        """Replace the state, and the weights by `best` if given.

        Raises:
            SaveError: the disk is full or the like; what was there stays.
        """
        try:
            with self._writer.replacing() as new:
                if best is not None:
                    write_checkpoint(new, best, torch.bfloat16)
                (new / RESUME_FILE).parent.mkdir()
                buffer = io.BytesIO()  # so that a full disk is an OSError, not one of PyTorch's own
                torch.save(state, buffer)
                (new / RESUME_FILE).write_bytes(buffer.getbuffer())
        except OSError as error:
            reason = error.strerror or str(error)
            raise SaveError(
                f"{self.folder}: could not be saved ({reason}): make room, then {way_on(has_state(self.folder))}"
            ) from error

    def snapshot(self, step: int, checkpoint: Checkpoint) -> None:
        """Write a checkpoint beside the folder, to look back at.

        Raises:
            OSError: the disk is full or the like, or its place is taken by something else.
        """
        folder = self.snapshots / f"{step:06d}"
        if names_in(folder) and not has_checkpoint(folder):
            raise FileExistsError(errno.EEXIST, "has other files in it", str(folder))
        with replacing(folder) as new:
            write_checkpoint(new, checkpoint, torch.bfloat16)


def has_state(folder: Path) -> bool:
    """Whether a run has left something to resume there."""
    return os.path.lexists(FolderReader(folder).path(RESUME_FILE))


def way_on(saved: bool) -> str:
    """What a user whose run ended too early can do."""
    if saved:
        return "go on from what was saved before, which is whole, with the same command and --resume=True"
    return "begin again with the same command: nothing was saved yet"


def load_state(folder: Path, device: torch.device) -> dict[str, Any]:
    """What `RunFolder.save` was given: its parts are there and of their kinds, what is in them is not checked.

    Raises:
        CheckpointError: it is not there, or is something else.
    """
    path = folder / RESUME_FILE
    try:
        state = read_whole(folder, lambda files: _read_state(files.path(RESUME_FILE), device))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: {NOTHING_TO_RESUME}") from error
    except OSError as error:
        raise unusable(path, error.strerror or str(error)) from error
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError) as error:
        raise unusable(path, "it is damaged") from error
    except pickle.UnpicklingError as error:
        raise unusable(path, "it is damaged, or holds more than plain weights and could run code") from error
    if not isinstance(state, dict) or not all(isinstance(state.get(n), k) for n, k in STATE_KINDS.items()):
        raise unusable(path, "it is not the state of a run")
    return state


def unusable(path: Path, reason: str) -> CheckpointError:
    """The error of a state that cannot be gone on from."""
    return CheckpointError(f"{path}: cannot be resumed ({reason}); begin a run in another --out_dir")


def _read_state(path: Path, device: torch.device) -> Any:
    check_file(path, MAX_STATE_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except zipfile.BadZipFile as error:
        raise OSError("it is damaged, or not the state of a run") from error
    unpacked = sum(part.file_size for part in parts)
    if unpacked > path.stat().st_size or any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise OSError("it is compressed, and would be larger than its file")
    return torch.load(path, map_location=device, weights_only=True)


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
