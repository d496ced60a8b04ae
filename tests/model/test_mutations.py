"""A damaged checkpoint is refused with its fault, or does no harm; code planted in it never runs."""

import asyncio
import json
import math
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from app.main import create_app
from app.serving.model_card import ModelCard
from app.serving.snapshots import SnapshotStore
from app.settings import ServerSettings
from model.analysis.overlap import CopyIndex
from model.checkpoint import Checkpoint, CurvePoint, TrainingRecord, read_checkpoint, write_checkpoint
from model.errors import CheckpointError
from model.generation.generator import load_generator
from model.generation.sequence import TextSequence
from tests.conftest import LiveServer
from tests.model.mutations import FILES, mutate
from tests.tiny import CPU, INT8, report_of, tiny_checkpoint, tiny_draft, tiny_index, tiny_play

CASES = int(os.environ.get("SOLILOQUY_MUTATIONS", "100"))
EXTRA_BYTES = 2 << 30  # of memory beyond what the tests have taken before
MAX_SECONDS = 60
RECORD = TrainingRecord(
    dataset={"name": "play", "characters": 9, "sha256": "0" * 64},
    recipe={"preset": "gpu", "max_iters": 9, "bias": False},
    curve=[CurvePoint(step=0, train=None, val=4.1), CurvePoint(step=9, train=3.0, val=2.5, lr=0.1, sample="QX")],
    val_loss=2.5,
    val_method="whole",
    baselines={"uniform": 4.1},
    date="2026-01-01",
    commit=None,
    seconds=1.5,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with all that it may have."""
    folder = tmp_path_factory.mktemp("whole") / "tiny"
    folder.mkdir()
    write_checkpoint(folder, replace(tiny_checkpoint(), training=RECORD, draft=tiny_draft(), index=tiny_index()))
    use(read_checkpoint(folder))  # compile what is to be compiled
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


@contextmanager
def bounded() -> Iterator[None]:
    """A context with bounded memory and time; what needs more fails with an error."""

    def expire(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done within {MAX_SECONDS} seconds")

    before = resource.getrlimit(resource.RLIMIT_AS)
    mapped = Path("/proc/self/statm")
    if mapped.exists():  # on Linux
        taken = int(mapped.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + EXTRA_BYTES, before[1]))
    previous = signal.signal(signal.SIGALRM, expire)
    signal.alarm(MAX_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        resource.setrlimit(resource.RLIMIT_AS, before)


def use(checkpoint: Checkpoint) -> None:
    """Serve it: its card, a text, a report. Weights that are finite but far too large end in a known error."""
    json.dumps(ModelCard.of(checkpoint, INT8).content(), allow_nan=False, ensure_ascii=False).encode()
    generator = load_generator(checkpoint, CPU, slots=2)
    sequence = TextSequence(checkpoint.vocabulary, [0], max_new_tokens=20, logprobs_from=0)
    with suppress(FloatingPointError):
        "".join(chunk.text for chunk in generator.write(sequence)).encode()
    if checkpoint.index is not None:
        json.dumps(report_of(tiny_play(1, 2), checkpoint).content(), allow_nan=False)


@pytest.mark.filterwarnings("ignore:overflow encountered")  # of such weights
def test_any_damage_is_refused_or_harmless(whole: Path, tmp_path: Path) -> None:
    """Never another error, never a hang, never more memory than there is, and nothing in a file is run."""
    refused = 0
    for seed in range(CASES):
        folder = Path(shutil.copytree(whole, tmp_path / str(seed) / "tiny"))
        name, what = mutate(folder, seed)
        refusal = None
        try:
            with bounded():
                use(read_checkpoint(folder))
        except CheckpointError as error:
            refusal = str(error)
        except Exception as error:
            raise AssertionError(f"{seed}: {name}: {what}") from error
        if refusal is not None:
            refused += 1
            assert any(file in refusal for file in (FILES if "swap" in what else [name])), f"{what}: {refusal}"
        assert not (folder.parent / "marker").exists(), f"{seed}: {name}: {what}"
        shutil.rmtree(folder.parent)
    assert CASES // 2 < refused < CASES


def test_a_new_checkpoint_that_is_broken_leaves_the_old_one_serving(whole: Path, folder: Path) -> None:
    """Ten kinds of damage in turn, each in the folder that is read again while the server runs."""
    asked = {"prompt": "ROMEO:", "max_new_tokens": 40, "seed": 7, "stream": False}
    with LiveServer(create_app(ServerSettings(checkpoint=folder, device="cpu", slots=2))) as live:
        service = live.app.state.service
        before = service.current
        text = httpx.post(f"{live.url}/generate", json=asked).json()["samples"]
        failed = 0
        for seed in range(CASES):
            shutil.rmtree(folder)
            shutil.copytree(whole, folder)
            mutate(folder, seed)
            try:
                read_checkpoint(folder)
            except CheckpointError:
                failed += 1
                assert asyncio.run(service.reload()) is False
                assert service.current is before
                assert httpx.get(f"{live.url}/health/ready").status_code == 200
                assert httpx.post(f"{live.url}/generate", json=asked).json()["samples"] == text
            (folder.unlink if folder.is_file() or folder.is_symlink() else lambda: None)()
            folder.mkdir(exist_ok=True)
            if failed == 10:
                return
    raise AssertionError("too little of it was broken")


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def value(name: str, **values: object) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))


def number(name: str, tensor: str, *new: float) -> Callable[[Path], object]:
    """The last numbers of a tensor."""

    def apply(folder: Path) -> None:
        tensors = {key: array.copy() for key, array in load_file(folder / name).items()}
        tensors[tensor].reshape(-1)[-len(new) :] = new
        save_file(tensors, folder / name)

    return apply


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return apply


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (text("config.json", "[" * 100_000), "config.json: cannot be read .*nested too deep"),
        (text("vocab.json", "[" * 100_000), "vocab.json: cannot be read .*nested too deep"),
        (text("vocab.json", '[["a"], {}]'), "vocab.json must be a list of one or more single characters"),
        (text("vocab.json", json.dumps(["\ud800", *map(chr, range(60))])), "vocab.json must be a list of"),
        (value("training.json", dataset=None), "training.json: dataset: .* not None"),
        (value("training.json", dataset={"name": ["play"]}), "training.json: dataset: .*name is not a text"),
        (value("training.json", date="yesterday"), "training.json: date: .*'yesterday'"),
        (value("training.json", curve=[{"step": 1}]), "training.json: curve.0.train: Field required"),
        (value("training.json", curve=[{"step": "1", "train": 1, "val": 1}]), "training.json: curve.0.step"),
        (value("training.json", val_loss="2"), "training.json: val_loss: .* not '2'"),
        (text("training.json", '{"val_loss": NaN}'), "training.json: cannot be read .*NaN is not a finite number"),
        (text("training.json", '{"recipe": {"dropout": 1e999}}'), "training.json: .*1e999 is not a finite"),
        (value("config.json", n_layer=10**9), "config.json: n_layer: 1,000,000,000 is more than"),
        (value("config.json", block_size=10**9), "config.json: block_size: 1,000,000,000 is more than"),
        (value("config.json", logit_scale=10**400), "config.json: logit_scale: .* is more than"),
        (number("model.safetensors", "tokens.weight", math.nan), "tokens.weight has numbers that are not finite"),
        (number("draft.safetensors", "keys", 2**63 - 1, 1 - 2**63), "is not a table of contexts"),
        (instead("config.json", os.mkfifo), "config.json: cannot be read .*not a file"),
        (instead("copies.safetensors", os.mkfifo), "copies.safetensors: cannot be read .*not a file"),
        (instead("model.safetensors", lambda path: path.symlink_to("/dev/zero")), "safetensors: .*not a file"),
        (lambda folder: os.truncate(folder / "vocab.json", 1 << 40), "vocab.json: .*bytes are more than"),
        (lambda folder: os.truncate(folder / "model.safetensors", 1 << 40), "safetensors: .*bytes are more than"),
        (instead("training.json", lambda path: path.symlink_to("nowhere")), "training.json: cannot be read"),
    ],
)
def test_what_once_broke_the_loader(folder: Path, damage: Callable[[Path], object], words: str) -> None:
    """Each of these ended in another error than a CheckpointError, in a hang, in all of the memory, or later in
    requests that failed. The loader trusted files to be files of a sensible size, JSON to be shallow and of the
    expected types, and tables to ascend without overflow. It checks all of that now before it reads on.
    """
    damage(folder)
    with bounded(), pytest.raises(CheckpointError, match=words):
        use(read_checkpoint(folder))


def test_other_folders_beside_the_snapshots_are_none(folder: Path) -> None:
    """A folder `12` among them was taken for the snapshot of step 12, which would be in `000012`, and then no
    request for snapshots was answered any more. Only what is named as training names it counts now.
    """
    for name in ("000009", "000100", "12", "٣", "notes"):
        snapshot = folder.with_name("tiny-snapshots") / name
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").touch()
    (folder.with_name("tiny-snapshots") / "000200").mkdir()  # one that is being written
    assert SnapshotStore(folder, INT8).steps == [9, 100]


@pytest.mark.parametrize("rung", [(8, 1, 2**62, 2, 0), (8, 1, 2**33, 2**33 - 2, 0), (2**40, 1, 1, 0, 0)])
def test_an_index_cannot_have_cells_that_it_does_not_hold(rung: tuple[int, ...]) -> None:
    """A filter of 2**64 cells was taken: their number overflowed to the 0 that there were, and what then read them
    read other memory. Sizes are bounded now, so that their product is what it seems.
    """
    with pytest.raises(ValueError, match=r"more than|ascend"):
        CopyIndex(0, np.array([rung], np.int64), np.zeros(0, np.uint8)).lengths("to be or not to be")
