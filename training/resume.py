"""The state that a stopped run resumes from: collected, read from its folder, checked, and applied.

The state holds all that changes from step to step: the weights, with `--ema` their average, the optimizers' states
and `Progress`. It holds no state of a random generator: batches and dropout are functions of the seed and the
step's number. So a resumed run takes the same steps as an uninterrupted one. Writing the file is
`training.run_folder`'s work.
"""

import dataclasses
import os
import pickle
import zipfile
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch.optim import Optimizer

from model.atomic_files import FolderReader, check_file, read_whole
from model.checkpoint import CurvePoint
from model.errors import CheckpointError, InputError
from model.network import GPT
from training.ema import MovingAverage
from training.optimizers import check_states
from training.settings import TrainSettings

RESUME_FILE = "resume/state.pt"
NOTHING_TO_RESUME = "there is nothing to resume; begin a run without --resume, in a folder of its own"
MAX_STATE_BYTES = 1 << 40  # 1 TiB
# What every state has. `dataset` is missing here, since the first versions did not save it.
STATE_TYPES = {"architecture": str, "weights": dict, "optimizers": list, "progress": dict}


@dataclasses.dataclass
class Progress:
    """How far a run has come, and what it has measured: all of a state besides weights and optimizers."""

    step: Annotated[int, Field(ge=0)] = 0
    seconds: float = 0.0  # that the run has taken, before and after each resume
    curve: list[CurvePoint] = dataclasses.field(default_factory=list)  # a point for each evaluation
    best: float = float("inf")  # lowest validation loss so far
    losses: list[float] = dataclasses.field(default_factory=list)  # of the steps since the last evaluation
    skipped: int = 0  # steps in a row without a finite gradient
    baselines: dict[str, float] = dataclasses.field(default_factory=dict)  # losses of simple models

    @property
    def evaluations_since_best(self) -> int:
        """Evaluations after the one with the lowest validation loss, the first of these if several have it."""
        losses = [point["val"] for point in self.curve]
        return len(losses) - 1 - losses.index(min(losses)) if losses else 0


def recovery_hint(saved: bool) -> str:
    """What a user can do about a run that ended too early, with or without a saved state."""
    if saved:
        return "go on from what was saved before, which is whole, with the same command and --resume=True"
    return "begin again with the same command: nothing was saved yet"


def resume_error(path: Path, reason: str) -> CheckpointError:
    """The error to raise for a state that cannot be resumed."""
    return CheckpointError(f"{path}: cannot be resumed ({reason}); begin a run in another --out_dir")


def has_state(folder: Path) -> bool:
    """Whether a run has saved a state in the folder."""
    return os.path.lexists(FolderReader(folder).path(RESUME_FILE))


@dataclasses.dataclass(frozen=True)
class RunParts:
    """What a state is collected from and restored into, and what it must be of.

    Attributes:
        average: None unless the run averages its weights.
        dataset: the `fingerprint` of the data set.
        teachers: identities of the checkpoints that the run distils, if it does.
    """

    network: GPT
    average: MovingAverage | None
    optimizers: list[Optimizer]
    dataset: str
    teachers: tuple[str, ...] = ()


def collect_state(parts: RunParts, progress: Progress) -> dict[str, Any]:
    """The state of a run now. It refers to the live tensors: copy it to keep it over a step."""
    state: dict[str, Any] = {
        "architecture": repr(parts.network.config),
        "dataset": parts.dataset,
        "weights": parts.network.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in parts.optimizers],
        "progress": vars(progress),
    }
    if parts.average is not None:
        state["average"] = parts.average.network.state_dict()
    if parts.teachers:
        state["teachers"] = list(parts.teachers)
    return state


def restore_state(state: dict[str, Any], parts: RunParts) -> Progress:
    """Load a state that `collect_state` returned into the parts of a run; return its progress."""
    parts.network.load_state_dict(state["weights"])
    if parts.average is not None:
        parts.average.network.load_state_dict(state["average"])
    for optimizer, saved in zip(parts.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return Progress(**state["progress"])


def load_state(folder: Path, device: torch.device) -> dict[str, Any]:
    """The state that was saved in the folder. Its parts exist and have their types; their contents are unchecked.

    Raises:
        CheckpointError: it is missing, damaged or something else.
    """
    path = folder / RESUME_FILE
    try:
        state = read_whole(folder, lambda files: _read_state(files.path(RESUME_FILE), device))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: {NOTHING_TO_RESUME}") from error
    except OSError as error:
        raise resume_error(path, error.strerror or str(error)) from error
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError) as error:
        # `torch.load` raises any of these for a damaged file.
        raise resume_error(path, "it is damaged") from error
    except pickle.UnpicklingError as error:
        raise resume_error(path, "it is damaged, or holds more than plain weights and could run code") from error
    if not isinstance(state, dict):
        raise resume_error(path, "it is not the state of a run")
    for name, expected in STATE_TYPES.items():
        if not isinstance(state.get(name), expected):
            raise resume_error(path, "it is not the state of a run")
    return state


def _read_state(path: Path, device: torch.device) -> Any:
    """What `torch.load` makes of the file, once the archive is known to unpack to no more than its own size.

    Raises:
        OSError: it is no such archive; its text is the reason that `load_state` gives.
        Exception: whatever `torch.load` raises for a damaged file.
    """
    check_file(path, MAX_STATE_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile as error:
        raise OSError("it is damaged, or not the state of a run") from error
    unpacked_bytes = sum(entry.file_size for entry in entries)
    compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if unpacked_bytes > path.stat().st_size or compressed:
        raise OSError("it is compressed, and would be larger than its file")
    return torch.load(path, map_location=device, weights_only=True)


def resume(settings: TrainSettings, parts: RunParts) -> Progress:
    """Restore the state saved in `out_dir`; return its progress.

    Everything is checked before anything is restored, except whether the weights fit the network: loading them
    finds that out.

    Raises:
        InputError: `--ema` is given and the state has no average of the weights, or the other way round.
        CheckpointError: it is of another network, data set, optimizer or teachers, or damaged.
    """
    network = parts.network
    state = load_state(settings.out_dir, next(network.parameters()).device)
    path = settings.out_dir / RESUME_FILE
    if state["architecture"] != repr(network.config):
        raise CheckpointError(
            f"{settings.out_dir}: the run to resume has another architecture or vocabulary: "
            f"{state['architecture']}, not {network.config}"
        )
    fingerprint = state.get("dataset", parts.dataset)  # a state of the first versions has none, and passes
    if fingerprint != parts.dataset:
        raise resume_error(path, f"its run read another data set than {settings.data}")
    if state.get("teachers", []) != list(parts.teachers):
        raise resume_error(path, f"its run has {_describe_teachers(state.get('teachers'))}")
    if parts.average is not None and "average" not in state:
        raise InputError("ema", f"the run in {settings.out_dir} averages no weights; resume it without the flag")
    if parts.average is None and "average" in state:
        raise InputError("ema", f"the run in {settings.out_dir} averages its weights; resume it with its --ema")
    try:
        progress = TypeAdapter(Progress).validate_python(state["progress"])
        check_states(parts.optimizers, state["optimizers"])
        checked_state = state | {"progress": vars(progress)}
        return restore_state(checked_state, parts)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        location = ".".join(map(str, first["loc"]))
        raise resume_error(path, f"its progress.{location}: {first['msg']}") from error
    except ValueError as error:
        raise resume_error(path, str(error)) from error
    except (RuntimeError, AttributeError, TypeError, LookupError) as error:
        raise resume_error(path, "its weights or optimizers do not fit the network") from error


def _describe_teachers(identities: object) -> str:
    """The teachers of a state, in an error message."""
    if not isinstance(identities, list) or not identities:
        return "no teachers; training.train resumes it"
    shown = ", ".join(f"{identity!s:.12}" for identity in identities)
    return f"other teachers, training.distill with these in their order: {shown}"
