"""Draw runs: `python -m training.plot --runs=checkpoints/a,checkpoints/b --out=loss.png`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from model.atomic_files import printable_name, read_json, read_whole, replacing_file
from model.checkpoint import RECORD_FILE, CurvePoint
from model.cli import SettingsPath, run, settings_config
from model.errors import CheckpointError, InputError
from model.flags import ProgramSettings
from training.dataset import Dataset
from training.ngram import losses
from training.settings import SettingsPaths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TINY_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
NANOGPT_LOSS = 1.4697  # its README's figure for this text
SUFFIXES = (".png", ".svg", ".pdf")
MARK = "Soliloquy, python -m training.plot"  # in the files that it may replace


class PlotSettings(ProgramSettings):
    """Draw the losses, learning rate and speed of one or more runs over the characters they have read."""

    model_config = settings_config("training.plot", "SOLILOQUY_PLOT_")

    runs: SettingsPaths = Field([Path("checkpoints/shakespeare-char")])
    """Checkpoint folders, with commas between"""
    out: SettingsPath = Path("loss.png")
    """File to write: .png, .svg or .pdf"""
    data: SettingsPath | None = None
    """Prepared data set whose n-gram losses are drawn as lines"""


@dataclass(frozen=True)
class TrainingRun:
    """The curve of one run."""

    name: str
    sha256: str  # of the data set
    points: list[CurvePoint]
    characters_per_step: int

    def series(self, key: str) -> tuple[list[float], list[float]]:
        """Millions of characters read, and the value of `key`, at the points that have one."""
        millions: list[float] = []
        values: list[float] = []
        for point in self.points:
            value: Any = point.get(key)
            if value is not None:
                millions.append(point["step"] * self.characters_per_step / 1e6)
                values.append(value)
        return millions, values


def read_run(folder: Path) -> TrainingRun:
    """The curve in a checkpoint's training.json.

    Raises:
        CheckpointError: missing, malformed or without a curve.
    """
    path = folder / RECORD_FILE
    try:
        record = read_whole(folder, lambda files: read_json(files.path(RECORD_FILE)))
        recipe = record["recipe"]
        points = record["curve"]
        rows = recipe["batch_size"] * recipe.get("gradient_accumulation_steps", 1)
        characters_per_step = rows * recipe["block_size"]
        sha256 = record["dataset"].get("sha256", "")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: has no loss curve of a run of training.train") from error
    if not points:
        raise CheckpointError(f"{path}: its loss curve has no points yet")
    return TrainingRun(printable_name(folder.resolve()), sha256, points, characters_per_step)


def baselines(data: Path) -> dict[str, float]:
    """Validation losses of n-gram models of the training split, in nats per character."""
    dataset = Dataset.load(data)
    names = {1: "unigram", 2: "bigram", 6: "Kneser–Ney 6-gram"}
    found = losses(dataset.train, dataset.val, len(dataset.vocabulary), names)
    return {names[order]: loss for order, loss in found.items()}


def draw(figure: "Figure", runs: list[TrainingRun], lines: dict[str, float]) -> "Figure":
    """Draw losses, with `lines` across them; below, learning rate and speed if a run recorded them."""
    panels: dict[str, str] = {}
    for key, label in {"lr": "learning rate", "tokens_per_second": "characters/s"}.items():
        if any(one.series(key)[0] for one in runs):
            panels[key] = label
    axes = figure.subplots(1 + len(panels), 1, sharex=True, squeeze=False, height_ratios=[5] + [1] * len(panels))
    loss, *rest = axes[:, 0]
    for i, training_run in enumerate(runs):
        color = f"C{i % 10}"
        best = min(point["val"] for point in training_run.points)
        loss.plot(
            *training_run.series("train"),
            color=color,
            linestyle="--",
            alpha=0.6,
            label=f"{training_run.name}, train",
        )
        loss.plot(
            *training_run.series("val"),
            "o-",
            color=color,
            markersize=3,
            label=f"{training_run.name}, val: {best:.4f}",
        )
        for panel, key in zip(rest, panels, strict=True):
            panel.plot(*training_run.series(key), color=color)
    for name, value in lines.items():
        loss.axhline(value, color="gray", linewidth=0.8)
        alignment = "top" if value == NANOGPT_LOSS else "bottom"  # it lies close under the 6-gram
        loss.annotate(
            f"{name} {value:.4f}", (0.99, value), xycoords=("axes fraction", "data"), ha="right", va=alignment
        )
    loss.set_ylabel("loss, nats/char (train: with dropout)")
    loss.legend()
    for panel, label in zip(rest, panels.values(), strict=True):
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
    axes[-1, 0].set_xlabel("million characters read")
    return figure


def check_out(path: Path) -> None:
    """Refuse a file of a kind that cannot be drawn, or one that this command did not write.

    Raises:
        InputError: of `out`.
    """
    if path.suffix not in SUFFIXES:
        raise InputError("out", f"{path.name!r} does not end in {', '.join(SUFFIXES)}")
    try:
        if path.exists() and MARK.encode() not in path.read_bytes():
            raise InputError("out", f"{path} is there, and was not drawn by this command; use another name")
    except OSError as error:
        raise InputError("out", f"{path} cannot be written ({error.strerror})") from error


def plot(settings: PlotSettings) -> None:
    """Read, draw, write, and say what was written."""
    check_out(settings.out)
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional
    except ImportError as error:
        raise InputError("out", "drawing needs matplotlib; pip install matplotlib") from error
    runs = [read_run(folder) for folder in settings.runs]
    lines = baselines(settings.data) if settings.data else {}
    if any(run.sha256 == TINY_SHAKESPEARE_SHA256 for run in runs):
        lines["nanoGPT, published"] = NANOGPT_LOSS
    figure = draw(Figure(figsize=(9, 9), layout="constrained"), runs, lines)
    try:
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(settings.out) as new:
            key = "Software" if settings.out.suffix == ".png" else "Creator"
            figure.savefig(new, dpi=130, metadata={key: MARK})
    except OSError as error:
        raise InputError("out", f"{settings.out} cannot be written ({error.strerror})") from error
    for name, value in lines.items():
        print(f"{name}: {value:.4f} nats/char")
    print(f"wrote {settings.out}")


if __name__ == "__main__":
    sys.exit(run(PlotSettings, plot, sys.argv[1:]))
