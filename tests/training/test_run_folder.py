"""A state to resume is checked before it is used, and what the message of a failed save promises is true."""

import errno
import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.atomic_files import STAGE
from model.checkpoint import read_checkpoint
from model.errors import CheckpointError, InputError, SaveError
from tests.training.test_trainer import TEXT, settings
from training.dataset import from_text
from training.resume import RESUME_FILE, load_state
from training.run_folder import RunFolder
from training.trainer import Trainer

CPU = torch.device("cpu")
DATASET = from_text(TEXT, {"name": "hamlet"})
PRESET = "cpu-2min"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, by Muon and AdamW."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    Trainer(settings(folder, preset=PRESET, max_iters=2), DATASET).run()
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """The same, to change."""
    shutil.copytree(finished, tmp_path / "x")
    return tmp_path / "x"


def resume(folder: Path, **changes: Any) -> None:
    trainer = Trainer(settings(folder, **{"preset": PRESET, "max_iters": 3, "resume": True} | changes), DATASET)
    trainer.close()


def stored(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def packed(value: object) -> bytes:
    """The same, compressed: a few bytes may be any number of them."""
    target = io.BytesIO()
    source = zipfile.ZipFile(io.BytesIO(stored(value)))
    with source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))
    return target.getvalue()


class Code:
    """What a pickle can carry."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


FOREIGN: dict[str, bytes] = {
    "empty": b"",
    "text": b"a state",
    "zip of something else": b"PK\x05\x06" + bytes(18),
    "mark": stored(True),
    "nothing": stored(None),
    "number": stored(7),
    "tensor": stored(torch.zeros(3)),
    "list": stored([1, 2]),
    "dictionary": stored({"model": {}, "iter_num": 5}),
    "of wrong kinds": stored({"architecture": 1, "weights": 2, "optimizers": 3, "progress": 4}),
    "code": stored({"architecture": Code()}),
    "a pickle of old": pickle.dumps({"architecture": "x"}),
    "compressed": packed({"architecture": "x", "weights": {}, "optimizers": [], "progress": {}}),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_what_is_not_the_state_of_a_run_is_refused(folder: Path, content: bytes) -> None:
    """Most were tracebacks, and what was refused came with PyTorch's advice to load it unsafely."""
    (folder / RESUME_FILE).write_bytes(content)
    before = read_checkpoint(folder).identity
    with pytest.raises(CheckpointError) as refusal:
        resume(folder)
    message = str(refusal.value)
    assert message.startswith(f"{folder / RESUME_FILE}: cannot be resumed (")
    assert message.endswith("; begin a run in another --out_dir")
    assert "\n" not in message
    assert "weights_only" not in message
    assert read_checkpoint(folder).identity == before


def test_a_state_in_the_place_of_which_is_a_folder_or_a_pipe_is_refused(folder: Path) -> None:
    for make in (os.mkdir, os.mkfifo):
        path = folder / RESUME_FILE
        path.unlink() if path.is_file() else path.rmdir()
        make(path)
        with pytest.raises(CheckpointError, match="cannot be resumed"):
            resume(folder)


def cut_progress(state: dict[str, Any]) -> None:
    state["progress"] = {"step": "many"}


def no_step(state: dict[str, Any]) -> None:
    state["progress"]["step"] = -1


def no_curve(state: dict[str, Any]) -> None:
    state["progress"]["curve"] = [{"loss": 1}]


def other_weights(state: dict[str, Any]) -> None:
    state["weights"]["tokens.weight"] = torch.zeros(3)


def no_tensors(state: dict[str, Any]) -> None:
    state["weights"] = dict.fromkeys(state["weights"], 1)


def odd_names(state: dict[str, Any]) -> None:
    state["weights"] = {1: torch.zeros(3)}


def one_optimizer(state: dict[str, Any]) -> None:
    state["optimizers"] = state["optimizers"][:1]


def no_optimizers(state: dict[str, Any]) -> None:
    state["optimizers"] = [1, None]


def no_groups(state: dict[str, Any]) -> None:
    state["optimizers"][0]["param_groups"] = []


def odd_rate(state: dict[str, Any]) -> None:
    state["optimizers"][0]["param_groups"][0]["lr"] = "fast"


def odd_parameters(state: dict[str, Any]) -> None:
    state["optimizers"][0]["param_groups"][0]["params"] = [[1]]


def odd_momentum(state: dict[str, Any]) -> None:
    next(iter(state["optimizers"][0]["state"].values()))["momentum_buffer"] = torch.zeros(3)


def half_of_adam(state: dict[str, Any]) -> None:
    next(iter(state["optimizers"][1]["state"].values())).pop("exp_avg")


CHANGES: list[Callable[[dict[str, Any]], None]] = [
    cut_progress,
    no_step,
    no_curve,
    other_weights,
    no_tensors,
    odd_names,
    one_optimizer,
    no_optimizers,
    no_groups,
    odd_rate,
    odd_parameters,
    odd_momentum,
    half_of_adam,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_state_with_parts_that_do_not_fit_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    state = load_state(folder, CPU)
    change(state)
    (folder / RESUME_FILE).write_bytes(stored(state))
    with pytest.raises(CheckpointError, match=r"cannot be resumed \(.*\); begin a run in another --out_dir$"):
        resume(folder)


def test_a_state_of_another_run_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="of another --optimizer"):
        resume(folder, optimizer="adamw")
    with pytest.raises(CheckpointError, match="another architecture"):
        resume(folder, n_embd=32)
    other = from_text(TEXT.replace("question", "noitseuq"), {"name": "hamlet"})
    chosen = settings(folder, preset=PRESET, max_iters=3, resume=True)
    with pytest.raises(CheckpointError, match="its run read another data set"):
        Trainer(chosen, other)
    resume(folder)  # and let the folder go


def test_a_state_of_an_earlier_version_is_resumed(folder: Path) -> None:
    """It did not say which data set its run had read."""
    state = load_state(folder, CPU)
    del state["dataset"]
    (folder / RESUME_FILE).write_bytes(stored(state))
    shutil.rmtree(folder / STAGE)
    resume(folder)


def test_every_damage_to_a_state_is_refused_or_harmless(folder: Path) -> None:
    """Bytes changed at random: no error but ours."""
    content = (folder / RESUME_FILE).read_bytes()
    refused = 0
    for seed in range(150):
        draws = torch.Generator().manual_seed(seed)
        positions = torch.randint(0, min(len(content), 6000), (3,), generator=draws).tolist()
        damaged = bytearray(content)
        for position in positions:
            damaged[position] ^= 1 + seed % 255
        (folder / RESUME_FILE).write_bytes(damaged)
        try:
            load_state(folder, CPU)
        except CheckpointError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("saved", [False, True])
def test_a_full_disk_promises_no_more_than_there_is(
    tmp_path: Path, folder: Path, saved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the very first save the message promised a run to resume that did not exist."""
    chosen = settings(folder if saved else tmp_path / "new", preset=PRESET, max_iters=3, resume=saved)
    trainer = Trainer(chosen, DATASET)

    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    message = "go on from what was saved before.*--resume=True" if saved else "begin again with the same command"
    with pytest.raises(SaveError, match=f"No space left on device.*make room, then {message}"):
        trainer.run()
    monkeypatch.undo()
    Trainer(chosen, DATASET).close()  # as the message says


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_is_a_file_is_refused_and_a_link_is_written_through(
    folder: Path, tmp_path: Path, resume: bool
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file; name a folder"):
        RunFolder(tmp_path / "file", resume)
    (tmp_path / "link").symlink_to("x" if resume else "made")
    run = RunFolder(tmp_path / "link", resume)
    run.save({"step": 5}, None)
    run.close()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / ("x" if resume else "made") / RESUME_FILE).is_file()
