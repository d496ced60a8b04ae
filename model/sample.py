"""The command that writes samples to the terminal, with nanoGPT's flags.

`python -m model.sample --out_dir=DIR --start="ROMEO:"`
"""

import math
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from model import atomic_files as files
from model.analysis.report import Report, make_report
from model.analysis.suffix_array import Source
from model.checkpoint import read_checkpoint
from model.cli import SettingsPath, run, settings_config
from model.device import choose_numerics
from model.errors import InputError
from model.flags import DeviceFlag, ForeignFlag, GenerationDtypeFlag, ProgramSettings
from model.generation.generator import load_generator
from model.generation.sequence import TextSequence
from model.sampling.noise import SEED_LIMIT
from model.sampling.sampler import Sampling

NANOGPT_FLAGS = {
    "init_from": ForeignFlag(
        "only resume, which writes with the checkpoint in --out_dir; GPT-2 writes tokens, not characters",
        accepted=("resume",),
    ),
}


class SampleSettings(ProgramSettings):
    """Write samples with a trained model, each character as it comes."""

    model_config = settings_config("model.sample", "SOLILOQUY_SAMPLE_")

    out_dir: SettingsPath = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    start: str = ""
    """Prompt, or FILE:path to read it from a file; a line break if empty, or what the model knows in its place"""
    num_samples: int = Field(10, ge=1)
    """Samples to write"""
    max_new_tokens: int = Field(500, ge=1)
    """Characters to write in each"""
    temperature: float = 0.8
    """Below 1 more certain, above 1 bolder; 0 always takes the likeliest"""
    top_k: int | None = 200
    """Choose among this many likeliest characters"""
    top_p: float | None = None
    """Choose among the likeliest that together have this probability"""
    min_p: float | None = None
    """Choose among those at least this fraction as likely as the likeliest"""
    seed: int = Field(1337, ge=0, lt=SEED_LIMIT)
    """The same seed writes the same text"""
    device: DeviceFlag = "auto"
    """Where to compute"""
    dtype: GenerationDtypeFlag = "auto"
    """Number format; auto is int8 on a CPU, bfloat16 on a GPU that has it, float32 elsewhere"""
    report: bool = False
    """After each sample, what in it is copied from the training text, what is invented, and how good it is"""
    source: SettingsPath | None = None
    """The training text, to say in reports where copies stand"""
    compile: bool = False
    """Compile the network with torch.compile where it has no kernels of its own (float32 on a CPU: needs a C++
    compiler)"""


def sample(settings: SampleSettings) -> None:
    """Load the checkpoint and print the samples."""
    sampling = Sampling(settings.temperature, settings.top_k, settings.top_p, settings.min_p)
    checkpoint = read_checkpoint(settings.out_dir)
    numerics = choose_numerics(settings.device, settings.dtype)
    start = read_start(settings.start) or checkpoint.vocabulary.default_prompt
    prompt = checkpoint.vocabulary.encode(start, "start")
    if settings.report:
        checkpoint.require_index()
    source = Source(read_text("source", settings.source)) if settings.source else None
    generator = load_generator(checkpoint, numerics, 1, compile=settings.compile)
    print(f"number of parameters: {checkpoint.parameter_count / 1e6:.2f}M")
    print(f"vocabulary of {len(checkpoint.vocabulary)} characters from {settings.out_dir / 'vocab.json'}")
    print(f"checkpoint {checkpoint.identity[:12]}, {numerics.name}, seed {settings.seed}")
    for index in range(settings.num_samples):
        sequence = TextSequence(
            checkpoint.vocabulary, prompt, sampling, settings.seed, index, settings.max_new_tokens
        )
        if settings.report:
            sequence.logprobs_from = 0
        text = ""
        bits = 0.0
        print(start, end="", flush=True)
        for chunk in generator.write(sequence):
            print(chunk.text, end="", flush=True)
            text += chunk.text
            bits -= sum(math.log2(max(one.probability, sys.float_info.min)) for one in chunk.logprobs)
        print("\n---------------")
        if settings.report:
            report = make_report(
                text,
                checkpoint.require_index(),
                checkpoint.draft,
                checkpoint.vocabulary,
                bits=bits / len(text),
                val_loss=checkpoint.training.get("val_loss"),
                source=source,
            )
            for line in describe(report):
                print(line)
            print("---------------")


def describe(report: Report) -> Iterator[str]:
    """The report in lines of English."""
    text = report.measured.text
    for sentence in report.sentences.values():
        yield sentence.english
    for copied, source_start in report.runs:
        at = "" if source_start is None else f", there from character {source_start:,} on"
        passage = text[copied.start : copied.end]
        yield f"copied, {copied.length} characters from {copied.start:,} on{at}: {passage!r}"
    for mark in report.measured.invented:
        line = f"invented, at {mark.word.start:,}: {mark.word.text}"
        similar = [like.word for like in (mark.begins_like, mark.ends_like) if like]
        if similar:
            line += f", like {' and '.join(dict.fromkeys(similar))}"  # each word once
        yield line
    for name, figure in report.content()["figures"].items():
        value = figure["value"]
        line = f"{name} none" if value is None else f"{name} {value:g}"
        real = figure["held_out"]
        if real:
            line += f"; in real text {real['mean']:g}"
            if real["low"] is not None:
                line += f" ({real['low']:g} to {real['high']:g})"
        yield line


def read_start(start: str) -> str:
    """The prompt itself, or the content of the file that `FILE:path` names.

    Raises:
        InputError: the file cannot be read as UTF-8 text.
    """
    if start.startswith("FILE:"):
        return read_text("start", Path(start.removeprefix("FILE:")))
    return start


def read_text(flag: str, path: Path) -> str:
    """The content of a file that a flag names.

    Raises:
        InputError: it cannot be read as text.
    """
    try:
        return files.read_text(path)
    except (OSError, ValueError) as error:
        raise InputError(flag, f"{path} cannot be read as text ({error})") from error


if __name__ == "__main__":
    sys.exit(run(SampleSettings, sample, sys.argv[1:], NANOGPT_FLAGS))
