"""The index of a training text that reports need, and its file `copies.safetensors`; no pickle.

It holds filters of the text's substrings, its words, its speakers, and figures of held-out text, but not the text.
"""

import hashlib
import json
import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from model.analysis.overlap import CopyIndex
from model.analysis.words import WordList
from model.atomic_files import NO_SUCH_TYPE, check_file, parse_json
from model.errors import CheckpointError

INDEX_FORMAT = 1
MAX_INDEX_BYTES = 1 << 30  # of a file


@dataclass(frozen=True)
class Range:
    """A figure of many pieces of text."""

    mean: float
    low: float = -math.inf  # 5 % of the pieces are below; infinite if it is not known
    high: float = math.inf  # 5 % are above


@dataclass(frozen=True)
class HeldOut:
    """The figures of `pieces` of `characters` each, of real text that the model was not trained on."""

    characters: int
    pieces: int
    figures: Mapping[str, Range]


@dataclass(frozen=True)
class TextIndex:
    """What is known of a training text.

    Attributes:
        speakers: of a play, the most frequent first; none for another text.
        held_out: for several sizes of pieces, ascending; none if the validation split is too short.
        sha256: of the data set's bytes, hex, as in `TrainingRecord`; None if it is not known.
    """

    copies: CopyIndex
    words: WordList
    speakers: tuple[str, ...]
    held_out: tuple[HeldOut, ...]
    sha256: str | None

    def held_out_of(self, characters: int) -> HeldOut | None:
        """The figures of pieces of `characters` characters, interpolated between the sizes below and above.

        Most figures change about linearly with the logarithm of the size. Outside the sizes that are known, the
        figures are those of the nearest size, with two exceptions: the longest run is extrapolated, and the shares
        of different words are left out for longer texts.
        """
        if not self.held_out:
            return None
        size = max(1, characters)
        sizes = [held_out.characters for held_out in self.held_out]
        above = bisect_left(sizes, size)
        if 0 < above < len(sizes):
            return _between(self.held_out[above - 1], self.held_out[above], size)
        nearest = self.held_out[min(above, len(sizes) - 1)]
        figures = dict(nearest.figures)
        if above == len(sizes):
            figures = {name: figure for name, figure in figures.items() if not name.startswith("distinct_")}
        if len(sizes) > 1 and "longest_copy" in figures:
            first = max(0, min(above - 2, len(sizes) - 2))
            extrapolated = _between(self.held_out[first], self.held_out[first + 1], size)
            longest = extrapolated.figures.get("longest_copy", figures["longest_copy"])
            figures["longest_copy"] = _within(longest, size)
        return replace(nearest, figures=figures)

    def save(self, path: Path) -> None:
        """Write the index to a safetensors file."""
        tensors = {**self.copies.tensors(), "words": _pack(self.words.words), "speakers": _pack(self.speakers)}
        metadata = {
            "format": INDEX_FORMAT,
            "digest": digest_of(tensors),
            "sha256": self.sha256,
            "held_out": [asdict(held_out) for held_out in self.held_out],
        }
        path.write_bytes(save(tensors, {"index": json.dumps(metadata)}))

    @classmethod
    def load(cls, path: Path, sha256: str | None) -> "TextIndex":
        """Read an index for a checkpoint whose training record has this `sha256` of its text, if it has one.

        Raises:
            CheckpointError: the file cannot be read, or is no index, or is one of another text.
        """
        try:
            check_file(path, MAX_INDEX_BYTES)
            with safe_open(path, "numpy") as file:
                file_metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            metadata = parse_json(file_metadata["index"])
        except (OSError, SafetensorError, KeyError, ValueError, *NO_SUCH_TYPE) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}); is it truncated?") from error
        if not isinstance(metadata, dict) or metadata.get("format") != INDEX_FORMAT:
            raise CheckpointError(f"{path}: is not an index of format {INDEX_FORMAT}")
        if metadata.get("digest") != digest_of(tensors):
            raise CheckpointError(f"{path}: is damaged: its content is not what was written")
        try:
            index = cls._from_file(metadata, tensors)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: is not an index that this version can read ({error})") from error
        if sha256 and index.sha256 and sha256 != index.sha256:
            raise CheckpointError(
                f"{path}: is the index of another text (SHA-256 {index.sha256[:12]}) than training.json names "
                f"({str(sha256)[:12]}); make it again with python -m training.index"
            )
        return index

    @classmethod
    def _from_file(cls, metadata: dict[str, Any], tensors: dict[str, NDArray[np.generic]]) -> "TextIndex":
        held_out: list[HeldOut] = []
        for content in metadata["held_out"]:
            figures = {name: _range(bounds) for name, bounds in content["figures"].items()}
            held_out.append(HeldOut(int(content["characters"]), int(content["pieces"]), figures))
        sizes = [one.characters for one in held_out]
        if any(size < 1 for size in sizes) or sizes != sorted(set(sizes)):
            raise ValueError(f"held-out pieces of {sizes} characters")
        words = WordList(_unpack(tensors["words"]))
        sha256 = metadata["sha256"]
        if not isinstance(sha256, str | None):
            raise TypeError(f"sha256 is {sha256!r:.60}")
        return cls(CopyIndex.from_tensors(tensors), words, _unpack(tensors["speakers"]), tuple(held_out), sha256)


def _between(smaller: HeldOut, larger: HeldOut, characters: int) -> HeldOut:
    """The figures that both sizes have, linear in the logarithm of the size: between them, or beyond."""
    share = math.log(characters / smaller.characters) / math.log(larger.characters / smaller.characters)
    figures: dict[str, Range] = {}
    for name, below in smaller.figures.items():
        above = larger.figures.get(name)
        if above is None:
            continue
        mean = below.mean + share * (above.mean - below.mean)
        low = below.low + share * (above.low - below.low)
        high = below.high + share * (above.high - below.high)
        if name == "longest_copy":  # whole characters: a run of 25 is not longer than one of 24.99
            low = round(low)
            high = round(high)
        figures[name] = Range(mean, low, high)
    return HeldOut(characters, min(smaller.pieces, larger.pieces), figures)


def _within(lengths: Range, characters: int) -> Range:
    """Lengths of runs, brought back to those that a text of so many characters can have."""
    low = lengths.low if math.isinf(lengths.low) else min(max(lengths.low, 0), characters)
    high = lengths.high if math.isinf(lengths.high) else min(max(lengths.high, low, 0), characters)
    mean = min(max(lengths.mean, low, 0), high, characters)
    return Range(mean, low, high)


def _range(bounds: Mapping[str, Any]) -> Range:
    numbers = [bounds[name] for name in ("mean", "low", "high")]
    if not all(type(number) in (int, float) for number in numbers):
        raise TypeError(f"a figure is {numbers}")
    return Range(*map(float, numbers))


def digest_of(tensors: Mapping[str, NDArray[np.generic]]) -> str:
    """SHA-256 of the tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].tobytes())
    return digest.hexdigest()


def _pack(lines: tuple[str, ...]) -> NDArray[np.generic]:
    """Lines as a tensor of bytes: UTF-8, joined by line breaks."""
    return np.frombuffer("\n".join(lines).encode(), np.uint8)


def _unpack(packed: NDArray[np.generic]) -> tuple[str, ...]:
    """The lines that `_pack` packed.

    Raises:
        ValueError: not UTF-8 in bytes.
    """
    if packed.dtype != np.uint8:
        raise ValueError(f"a list of words is {packed.dtype}, not uint8")
    return tuple(packed.tobytes().decode().split("\n")) if packed.size else ()
