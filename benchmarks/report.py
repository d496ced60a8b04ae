"""What the model makes up and what it copies: 100 of its texts and held-out text; and how often the index errs.

python -m benchmarks.report [--checkpoint=DIR] [--data=data/shakespeare-char] [--other=FILE]

Every figure of a report, as a Markdown table; then the index's false positives on other English text: FILE, or a
megabyte of this machine's licences and of the docstrings of Python's own library.
"""

import ast
import math
import statistics
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import Field
from pydantic_settings import BaseSettings
from tqdm import tqdm

from model.analysis.measure import FIGURES
from model.analysis.overlap import CopyIndex, Lengths
from model.analysis.report import make_report
from model.analysis.suffix_array import Source
from model.analysis.text_index import HeldOut, Range
from model.checkpoint import Checkpoint, read_checkpoint
from model.cli import run, settings_config
from model.device import DeviceName, choose_numerics
from model.generation.generator import load_generator
from model.generation.sequence import TextSequence
from model.sampling.sampler import Sampling
from training.dataset import Dataset
from training.index import summarise

LENGTH = 1000
SLOTS = 10
MAX_OTHER_CHARACTERS = 1_000_000
LICENCES = Path("/usr/share/common-licenses")


class BenchmarkSettings(BaseSettings):
    """Measure what a checkpoint makes up and copies, and how often its index errs."""

    model_config = settings_config("benchmarks.report", "SOLILOQUY_BENCHMARK_")

    checkpoint: Path = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    data: Path = Path("data/shakespeare-char")
    """Folder that training.prepare wrote, of the checkpoint's training text"""
    other: Path | None = None
    """Text that has nothing to do with it; if not given, English from this machine"""
    samples: int = Field(100, ge=1)
    """Texts to write, of 1,000 characters each"""
    temperature: float = 0.8
    """As in model.sample"""
    seed: int = Field(1337, ge=0)
    """As in model.sample"""
    device: DeviceName = "auto"
    """Where to compute"""


class Sample(NamedTuple):
    """A text of the model, and its bits a character by the model."""

    text: str
    bits: float


def write_samples(settings: BenchmarkSettings, checkpoint: Checkpoint) -> list[Sample]:
    """The texts that the model writes."""
    generator = load_generator(checkpoint, choose_numerics(settings.device, "auto"), SLOTS)
    vocabulary = checkpoint.vocabulary
    sampling = Sampling(settings.temperature)
    prompt = vocabulary.encode(vocabulary.default_prompt)
    samples: list[Sample] = []
    for first in tqdm(range(0, settings.samples, SLOTS), leave=False, unit_scale=SLOTS, unit="text"):
        bits: dict[TextSequence, float] = {}  # of each sequence so far
        for i in range(first, min(first + SLOTS, settings.samples)):
            sequence = TextSequence(vocabulary, prompt, sampling, settings.seed, i, LENGTH, logprobs_from=0)
            bits[sequence] = 0.0
            generator.add(sequence)
        while generator.free_slots < SLOTS:
            for sequence, chunk in generator.step(bits):
                for character in chunk.logprobs:
                    bits[sequence] -= math.log2(max(character.probability, sys.float_info.min))
        samples += [Sample(vocabulary.decode(sequence.written), found / LENGTH) for sequence, found in bits.items()]
    return samples


def show_table(written: HeldOut, held_out: HeldOut, checkpoint: Checkpoint) -> None:
    """Print a Markdown table of each figure's mean and middle nine tenths."""
    print(f"| figure | {written.pieces} texts of the model | {held_out.pieces} pieces of held-out text |")
    print("| --- | ---: | ---: |")
    real = dict(held_out.figures)
    if "val_loss" in checkpoint.training:
        real["model_bits"] = Range(checkpoint.training["val_loss"] / math.log(2))
    for name, meaning in FIGURES.items():
        print(f"| `{name}`: {meaning} | {_cell(written.figures.get(name))} | {_cell(real.get(name))} |")


def show_errors(index: CopyIndex, train: str, text: str) -> None:
    """Print how often each filter errs on a text, and how many lengths of runs are wrong for that."""
    print("\n| filter of | substrings not in it | taken for members | rate |")
    print("| --- | ---: | ---: | ---: |")
    first_cell = 0
    for k, row in enumerate(index.filters):
        length = int(row["length"])
        stride = int(row["stride"])
        size = int((row["segment_count"] + 2) * row["segment_length"]) if row["segment_count"] else 0
        only_this = index.filters[k : k + 1].copy()
        only_this["stride"] = 1  # asks the filter about every substring
        rungs = only_this.view(np.int64).reshape(1, -1)
        cells = index.cells[first_cell : first_cell + size]
        claimed = CopyIndex(index.salt, rungs, cells).lengths(text) >= length
        first_cell += size
        members = {train[i : i + length] for i in range(0, len(train) - length + 1, stride)}
        is_absent = np.zeros(len(text), bool)
        is_absent[length - 1 :] = [text[i : i + length] not in members for i in range(len(text) - length + 1)]
        absent = int(is_absent.sum())
        false = int((claimed & is_absent).sum())
        name = f"{length} characters" + (f", 1 in {stride}" if stride > 1 else "")
        print(f"| {name} | {absent:,} | {false:,} | {false / max(1, absent):.4%} |")
    reported = index.lengths(text)
    exact = Source(train).lengths(text)
    print("\n| characters that end a run of at least | reported | in fact | falsely reported |")
    print("| --- | ---: | ---: | ---: |")
    for min_length in (index.shortest, 15, 20, 30, 50, 100):
        false = int(((reported >= min_length) & (exact < min_length)).sum())
        share = f"{false:,} ({false / len(text):.4%} of all)"
        print(f"| {min_length} | {_count(reported, min_length):,} | {_count(exact, min_length):,} | {share} |")
    print(f"longest run reported: {reported.max()} characters; in fact: {exact.max()}")


def find_other_text(path: Path | None) -> tuple[str, str]:
    """A text that is not the training text, and where it comes from."""
    if path is not None:
        return path.read_text(encoding="utf-8")[:MAX_OTHER_CHARACTERS], str(path)
    licences = sorted(file for file in LICENCES.glob("*") if file.is_file() and not file.is_symlink())
    text = "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in licences)
    library = Path(sysconfig.get_paths()["stdlib"])
    docstrings = 0
    for docstring in _docstrings(library):
        if len(text) >= MAX_OTHER_CHARACTERS:
            break
        text += "\n" + docstring
        docstrings += 1
    return text[
        :MAX_OTHER_CHARACTERS
    ], f"{len(licences)} licences in {LICENCES}, and {docstrings:,} docstrings of {library}"


def _docstrings(library: Path) -> Iterator[str]:
    """The docstrings of all modules, classes and functions, file by file."""
    for path in sorted(library.rglob("*.py")):
        if not {"site-packages", "test", "tests", "idle_test"} & set(path.parts):
            try:
                with warnings.catch_warnings(action="ignore"):
                    tree = ast.parse(path.read_bytes())
            except SyntaxError:  # lib2to3's examples of Python 2
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    yield ast.get_docstring(node) or ""


def _count(lengths: Lengths, min_length: int) -> int:
    return int((lengths >= min_length).sum())


def _cell(found: Range | None) -> str:
    if found is None:
        return "none"
    return f"{found.mean:.4g}" + ("" if math.isinf(found.high) else f" ({found.low:.3g} to {found.high:.3g})")


def main(settings: BenchmarkSettings) -> None:
    """Write, measure, print."""
    checkpoint = read_checkpoint(settings.checkpoint)
    index = checkpoint.require_index()
    dataset = Dataset.load(settings.data)
    train = dataset.vocabulary.decode(dataset.train.tolist())
    other, origin = find_other_text(settings.other)
    samples = write_samples(settings, checkpoint)
    reports = []
    for text, bits in tqdm(samples, leave=False, unit="report"):
        report = make_report(
            text,
            index,
            checkpoint.draft,
            checkpoint.vocabulary,
            bits=bits,
            val_loss=checkpoint.training.get("val_loss"),
        )
        reports.append(report)
    figures = summarise(LENGTH, [report.measured.figures for report in reports])
    print(
        f"checkpoint {checkpoint.identity[:12]}, temperature {settings.temperature:g}, seed {settings.seed}; ",
        end="",
    )
    print(f"{LENGTH:,} characters each: the mean (5 % are below, 5 % above)\n")
    held_out = index.held_out_of(LENGTH)
    show_table(figures, held_out or HeldOut(LENGTH, 0, {}), checkpoint)
    lengths: list[int] = []
    for report in reports:
        lengths += [len(mark.word.text) for mark in report.measured.invented]
    mean_length = statistics.mean(lengths) if lengths else 0
    print(f"\n{len(lengths):,} invented words, of {mean_length:.1f} letters on average")
    print(f"\nThe index on {len(other):,} characters of other text: {origin}")
    show_errors(index.copies, train, other)


if __name__ == "__main__":
    sys.exit(run(BenchmarkSettings, main, sys.argv[1:]))
