"""Write samples to the terminal, with nanoGPT's flags: `python -m model.sample --out_dir=DIR --start="ROMEO:"`."""

import sys
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

from model.checkpoint import read_checkpoint
from model.cli import run, settings_config
from model.device import DeviceName, GenerationDtypeName, choose_numerics
from model.errors import InputError
from model.generator import load_generator
from model.noise import SEED_LIMIT
from model.sampling import Sampling
from model.stream import Stream


class SampleSettings(BaseSettings):
    """Write samples with a trained model, each character as it comes."""

    model_config = settings_config("model.sample", "SOLILOQUY_SAMPLE_")

    out_dir: Path = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    start: str = "\n"
    """Prompt, or FILE:path to read it from a file"""
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
    device: DeviceName = "auto"
    """Where to compute"""
    dtype: GenerationDtypeName = "auto"
    """Number format; auto is int8 on a CPU, bfloat16 on a GPU that has it, float32 elsewhere"""
    compile: bool = False
    """Compile the network with torch.compile, except in int8 (needs a C++ compiler on a CPU)"""


def sample(settings: SampleSettings) -> None:
    """Load the checkpoint and print the samples."""
    sampling = Sampling(settings.temperature, settings.top_k, settings.top_p, settings.min_p)
    checkpoint = read_checkpoint(settings.out_dir)
    numerics = choose_numerics(settings.device, settings.dtype)
    start = read_start(settings.start)
    prompt = checkpoint.vocabulary.encode(start, "start")
    generator = load_generator(checkpoint, numerics, 1, compile=settings.compile)
    print(f"number of parameters: {checkpoint.parameter_count / 1e6:.2f}M")
    print(f"vocabulary of {len(checkpoint.vocabulary)} characters from {settings.out_dir / 'vocab.json'}")
    print(f"checkpoint {checkpoint.identity[:12]}, {numerics.name}, seed {settings.seed}")
    for index in range(settings.num_samples):
        stream = Stream(checkpoint.vocabulary, prompt, sampling, settings.seed, index, settings.max_new_tokens)
        print(start, end="", flush=True)
        for piece in generator.write(stream):
            print(piece.text, end="", flush=True)
        print("\n---------------")


def read_start(start: str) -> str:
    """The prompt itself, or the content of the file that `FILE:path` names; empty means a line break.

    Raises:
        InputError: the file cannot be read as UTF-8 text.
    """
    if start.startswith("FILE:"):
        path = start.removeprefix("FILE:")
        try:
            start = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("start", f"{path} cannot be read as UTF-8 text ({error})") from error
    return start or "\n"


if __name__ == "__main__":
    sys.exit(run(SampleSettings, sample, sys.argv[1:]))
