"""The file by which a browser reports on a text: the index of a checkpoint's training text.

A safetensors file like that of the weights (model/browser_weights.py), with one tensor, `cells` U8 (M,): those of
all filters of the `CopyIndex`. Its metadata has the rest, as JSON: salt and filters, the latter as rows of
`FILTER_DTYPE`, with whole numbers of 64 bits as strings; words and speakers; figures of held-out text, in which a
bound that is not known is null; the validation loss; and the case folding of the characters whose lower case is
another.

Knows nothing of how a report is made: static/analysis/ does that, as model/analysis/ does it for the server.
"""

import math
import sys
from dataclasses import asdict
from typing import Any

from model.analysis.text_index import HeldOut
from model.browser_weights import described_file
from model.checkpoint import Checkpoint

BROWSER_INDEX_FORMAT = 1
SURROGATES = range(0xD800, 0xE000)


def browser_index(checkpoint: Checkpoint) -> bytes:
    """Return the file's bytes: always the same for the same checkpoint.

    Raises:
        InputError: the checkpoint has no index.
    """
    index = checkpoint.require_index()
    content = {
        "format": BROWSER_INDEX_FORMAT,
        "checkpoint": checkpoint.identity,
        "salt": str(index.copies.salt),
        "filters": [[str(number) for number in row] for row in index.copies.rungs.tolist()],
        "words": index.words.words,
        "speakers": index.speakers,
        "held_out": [_held_out(one) for one in index.held_out],
        "val_loss": checkpoint.training.get("val_loss"),
        "folds": case_folds(),
    }
    return described_file({"cells": index.copies.cells}, content)


def case_folds() -> dict[str, str]:
    """Return the case folding of each character for which that is not its lower case, such as ß."""
    folds: dict[str, str] = {}
    for point in range(sys.maxunicode + 1):
        character = chr(point)
        if point not in SURROGATES and character.casefold() != character.lower():
            folds[character] = character.casefold()
    return folds


def _held_out(held_out: HeldOut) -> dict[str, Any]:
    """Return figures as JSON can hold them: a bound that is not known is None."""
    figures: dict[str, dict[str, float | None]] = {}
    for name, figure in held_out.figures.items():
        figures[name] = {bound: None if math.isinf(value) else value for bound, value in asdict(figure).items()}
    return {"characters": held_out.characters, "pieces": held_out.pieces, "figures": figures}
