"""No command replaces or deletes a file that it did not write, and every spelling of a folder means that folder."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.serving.snapshots import SnapshotStore
from app.settings import ServerSettings
from model.atomic_files import STAGE
from model.checkpoint import write_checkpoint
from model.cli import read_settings, run
from model.sample import SampleSettings, sample
from tests.tiny import CPU, tiny_checkpoint
from training.average import AverageSettings, average
from training.dataset import Dataset
from training.distill import DistillSettings, distill
from training.evaluate import EvaluateSettings, main
from training.import_nanogpt import ImportSettings, import_nanogpt
from training.index import IndexSettings, add_index
from training.plot import PlotSettings, plot
from training.prepare import PrepareSettings, prepare
from training.settings import TrainSettings
from training.train import train

TEXT = "To be, or not to be: that is the question.\n" * 40
TINY = ("--n_layer=1", "--n_head=1", "--n_embd=8", "--block_size=8", "--batch_size=2", "--max_iters=2")
FAST = (*TINY, "--preset=cpu-2min", "--device=cpu", "--dtype=float32", "--sample_tokens=0", "--warmup_iters=1")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder, and the text to learn from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("play.txt").write_text(TEXT)


def listing(folder: Path) -> dict[str, str]:
    """What others have put into a folder and the folders in it."""
    paths = [path for path in folder.rglob("*") if path.is_file() and STAGE not in path.parts]
    return {str(path.relative_to(folder)): path.read_text(errors="replace") for path in paths}


@pytest.mark.parametrize(
    "names",
    [
        ["input.txt"],  # nanoGPT keeps its text just there
        ["input.txt", "train.bin", "val.bin", "meta.pkl", "prepare.py"],
        ["notes/deep/file"],
        ["dataset.json"],
        ["config.json", "model.safetensors", "vocab.json"],
        [".env"],
    ],
)
def test_prepare_refuses_a_folder_with_files_of_others(
    names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """`prepare --input_file=data/mine/input.txt --out_dir=data/mine` removed the folder with all that was in it.

    The new folder took the place of the old one, whatever that held. Now only files are replaced, in a folder that
    has none or is a data set.
    """
    for name in names:
        (Path("mine") / name).parent.mkdir(parents=True, exist_ok=True)
        (Path("mine") / name).write_text(TEXT)
    before = listing(Path("mine"))
    text = Path("mine") / "input.txt"
    source = text if text.exists() else Path("play.txt")
    assert run(PrepareSettings, prepare, [f"--input_file={source}", "--out_dir=mine"]) == 2
    refusal = capsys.readouterr().err
    assert refusal.count("\n") == 1
    assert refusal.startswith("out_dir: mine ")
    assert sorted(names)[0].split("/")[0] in refusal
    assert listing(Path("mine")) == before
    assert not (Path("mine") / STAGE).exists()
    remedy = refusal.rsplit(" ", 1)[-1].strip()
    assert run(PrepareSettings, prepare, [f"--input_file={source}", f"--out_dir={remedy}"]) == 0
    assert listing(Path("mine")).items() >= before.items()


def test_prepare_replaces_its_own_files_and_no_others() -> None:
    arguments = ["--input_file=play.txt", "--out_dir=data"]
    assert run(PrepareSettings, prepare, arguments) == 0
    (Path("data") / "NOTES.md").write_text("mine")
    Path("play.txt").write_text(TEXT.upper())
    assert run(PrepareSettings, prepare, arguments) == 0
    assert Dataset.load(Path("data")).vocabulary.characters == tuple(sorted(set(TEXT.upper())))
    assert (Path("data") / "NOTES.md").read_text() == "mine"


@pytest.mark.parametrize("name", ["vocab.json", "dataset.json", "train.bin"])
def test_prepare_does_not_replace_what_it_reads(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(PrepareSettings, prepare, ["--input_file=play.txt", "--out_dir=data"]) == 0
    before = listing(Path("data"))
    Path("link.txt").symlink_to(Path("data") / name)
    for source in (f"data/{name}", "link.txt"):
        assert run(PrepareSettings, prepare, [f"--input_file={source}", "--out_dir=data"]) == 2
        assert "input_file: " in capsys.readouterr().err
    assert listing(Path("data")) == before


def test_train_keeps_what_others_put_into_its_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """`train --resume=True` dropped a user's NOTES.md, and each save every sub-folder."""
    assert run(PrepareSettings, prepare, ["--input_file=play.txt", "--out_dir=data"]) == 0
    Path("out").mkdir()
    (Path("out") / "mine").write_text("mine")
    arguments = ["--data=data", "--out_dir=out", *FAST]
    assert run(TrainSettings, train, arguments) == 2
    assert "out_dir: out already exists, and is not empty; use another folder" in capsys.readouterr().err
    (Path("out") / "mine").unlink()
    assert run(TrainSettings, train, arguments) == 0
    (Path("out") / "NOTES.md").write_text("mine")
    (Path("out") / "resume" / "plots").mkdir()
    (Path("out") / "resume" / "plots" / "1").write_text("mine")
    assert run(TrainSettings, train, [*arguments, "--max_iters=4", "--resume=True"]) == 0
    assert listing(Path("out")).items() >= {"NOTES.md": "mine", "resume/plots/1": "mine"}.items()
    Path("new-snapshots").mkdir()
    (Path("new-snapshots") / "notes").write_text("mine")
    assert run(TrainSettings, train, ["--data=data", "--out_dir=new", *FAST, "--snapshots=2"]) == 2
    assert "snapshots: " in capsys.readouterr().err
    assert not Path("new").exists()


def test_import_writes_into_an_empty_folder_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    """A mount point or a Docker volume is there before."""
    Path("out").mkdir()
    arguments = ["--ckpt=ckpt.pt", "--meta=meta.pkl", "--out_dir=out"]
    assert run(ImportSettings, import_nanogpt, arguments) == 2
    assert "ckpt.pt: cannot be read" in capsys.readouterr().err
    (Path("out") / "mine").write_text("mine")
    assert run(ImportSettings, import_nanogpt, arguments) == 2
    assert "out_dir: out already exists, and is not empty" in capsys.readouterr().err


SPELLINGS = [
    ".",
    "./",
    "../{name}",
    "sub/..",
    "~",
    "~/",
    "{name}/../../{name}",
    "-x",
    "a b",
    "a\nb",
    "ünïcode",
    "x/",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("joined", [True, False])
def test_every_spelling_of_a_folder_is_usable(tmp_path: Path, spelling: str, joined: bool) -> None:
    """`.` had no name to make others of, `~` was a folder called so, and a flag's value ended at a line break."""
    text = tmp_path.parent / f"{tmp_path.name}-play.txt"
    Path("play.txt").rename(text)
    if ".." in spelling or spelling.startswith("sub"):
        (tmp_path.parent / "sub").mkdir(exist_ok=True)
    spelling = spelling.format(name=tmp_path.name)
    if spelling == "sub/..":
        Path("sub").mkdir()
        spelling = str(Path("sub") / ".." / "out")
    folder = Path(os.path.realpath(os.path.expanduser(spelling)))
    given = [f"--out_dir={spelling}"] if joined or spelling.startswith("-") else ["--out_dir", spelling]
    assert run(PrepareSettings, prepare, [f"--input_file={text}", *given]) == 0
    assert Dataset.load(folder).source["name"] == text.stem
    given = [f"--data={spelling}"] if joined or spelling.startswith("-") else ["--data", spelling]
    settings = read_settings(TrainSettings, given)
    assert settings.out_dir == Path("checkpoints") / folder.name


@pytest.mark.parametrize("spelling", [".", "../{name}", "..//{name}/", "~", "~/../{name}"])
def test_every_spelling_of_a_checkpoint_is_read(
    tmp_path: Path, spelling: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--checkpoint=.` was a traceback: its snapshots' folder is named after it."""
    write_checkpoint(tmp_path, tiny_checkpoint())
    snapshots = tmp_path.parent / f"{tmp_path.name}-snapshots"
    (snapshots / "000000").mkdir(parents=True)
    write_checkpoint(snapshots / "000000", tiny_checkpoint())
    (snapshots / "000001" / STAGE).mkdir(parents=True)  # one that is being written
    spelling = spelling.format(name=tmp_path.name)
    arguments = ["--num_samples=1", "--max_new_tokens=3", "--device=cpu", "--dtype=float32"]
    assert run(SampleSettings, sample, [f"--out_dir={spelling}", *arguments]) == 0
    settings = ServerSettings(checkpoint=Path(spelling))
    assert SnapshotStore(settings.checkpoint, CPU).steps == [0]
    assert settings.checkpoint.resolve().name == tmp_path.name
    assert "number of parameters" in capsys.readouterr().out


EMPTY: list[tuple[type, Callable[..., None], str, list[str]]] = [
    (PrepareSettings, prepare, "out_dir", []),
    (PrepareSettings, prepare, "input_file", []),
    (TrainSettings, train, "data", []),
    (TrainSettings, train, "out_dir", ["--data=x"]),
    (SampleSettings, sample, "out_dir", []),
    (EvaluateSettings, main, "checkpoint", []),
    (IndexSettings, add_index, "checkpoint", ["--data=x"]),
    (AverageSettings, average, "data", ["x", "y", "--out_dir=z"]),
    (DistillSettings, distill, "out_dir", ["--data=x", "--teachers=y"]),
    (ImportSettings, import_nanogpt, "out_dir", ["--ckpt=x", "--meta=y"]),
]


@pytest.mark.parametrize(("settings", "command", "field", "others"), EMPTY)
def test_an_empty_path_is_refused_by_name(
    settings: type, command: Callable[..., None], field: str, others: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It was the current folder: Path("") is Path("."). Nothing is said of a default that would follow from it."""
    for blank in ("", " "):
        assert run(settings, command, [f"--{field}={blank}", *others]) == 2
        assert capsys.readouterr().err == f"--{field}: Input should not be blank, not {blank!r}\n"


@pytest.mark.parametrize("paths", ["a,,b", ","])
def test_an_empty_path_among_several_is_refused_by_name(paths: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(PlotSettings, plot, [f"--runs={paths}"]) == 2
    refusal = capsys.readouterr().err
    assert refusal.startswith("--runs.")
    assert ": Input should name a file or folder" in refusal
    assert refusal.count("\n") == 1


@pytest.mark.parametrize("blank", ["", " "])
@pytest.mark.parametrize("by_flag", [True, False])
def test_a_server_with_a_blank_checkpoint_serves_no_current_folder(blank: str, by_flag: bool) -> None:
    """A blank one was the current folder. As a flag it is refused; as a variable, which files of services and
    containers leave blank for what is not set, it is as good as none.
    """
    write_checkpoint(Path(), tiny_checkpoint())
    result = subprocess.run(
        [sys.executable, "-m", "app", "--port=0", *([f"--checkpoint={blank}"] if by_flag else [])],
        env=os.environ | {"SOLILOQUY_CHECKPOINT": blank, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    refusal = f"--checkpoint: Input should not be blank, not {blank!r}\n"
    absent = "checkpoints/shakespeare-char: no such checkpoint folder\n"
    assert result.stderr == (refusal if by_flag else absent)


def test_a_name_is_kept_and_can_be_shown() -> None:
    name = "Hamlet, by hand"
    assert run(PrepareSettings, prepare, ["--input_file=play.txt", "--out_dir=data", f"--name={name}"]) == 0
    assert run(TrainSettings, train, ["--data=data", "--out_dir=out", *FAST]) == 0
    assert json.loads((Path("out") / "training.json").read_text())["dataset"]["name"] == name


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 81, "\u202eabc", "\ud800", "\x1b[31mred"])
def test_a_name_that_cannot_be_shown_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(PrepareSettings, prepare, ["--input_file=play.txt", "--out_dir=data", f"--name={name}"]) == 2
    refusal = capsys.readouterr().err
    assert refusal.startswith("--name: Input should be 1 to 80 printable characters")
    assert refusal.count("\n") == 1


@pytest.mark.parametrize("name", ["None", "null", "--resume"])
def test_a_name_is_a_text_whatever_is_in_it(name: str) -> None:
    """`--name=None` was taken for no name, and `--name --x` for a flag without a value: a text with a check of its
    own was not seen to be one.
    """
    assert run(PrepareSettings, prepare, ["--input_file=play.txt", "--out_dir=data", "--name", name]) == 0
    assert Dataset.load(Path("data")).source["name"] == name


@pytest.mark.parametrize(
    ("stem", "name"), [("a\nb", "a"), ("caf\udce9", "caf"), ("x" * 200, "x" * 80), ("\u202e", "a text")]
)
def test_a_name_that_a_file_gives_can_be_shown(stem: str, name: str) -> None:
    Path("play.txt").rename(f"{stem}.txt")
    assert run(PrepareSettings, prepare, [f"--input_file={stem}.txt", "--out_dir=data"]) == 0
    found = Dataset.load(Path("data")).source["name"]
    assert found.isprintable()
    assert found.startswith(name)
