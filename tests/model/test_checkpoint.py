import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint import read_checkpoint, write_checkpoint
from model.errors import CheckpointError
from model.weights import BFLOAT16
from tests.tiny import ROTARY, tiny_checkpoint, tiny_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_folder(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_what_is_written_is_read(folder: Path) -> None:
    written = tiny_checkpoint()
    read = read_checkpoint(folder)
    assert read.config == written.config
    assert read.vocabulary.characters == written.vocabulary.characters
    assert read.training == written.training
    assert all(np.array_equal(read.weights[name], array) for name, array in written.weights.items())


def test_the_identity_is_what_its_docstring_says(folder: Path) -> None:
    """Computed here from the files, as somebody would who has no code of ours."""
    stored = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(stored[:8], "little")
    header = json.loads(stored[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = [[name, "torch.float32", one["shape"]] for name, one in sorted(header.items())]
    config = json.loads((folder / "config.json").read_text())
    changed = ("activation", "block_size", "n_embd", "n_head", "n_layer", "norm", "positions", "qk_norm")
    content = {
        "config": {name: config[name] for name in (*changed, "vocab_size")},
        "vocabulary": json.loads((folder / "vocab.json").read_text()),
        "tensors": tensors,
    }
    line = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(b"soliloquy checkpoint\n" + line.encode() + b"\n")
    for name in sorted(header):
        start, end = header[name]["data_offsets"]
        digest.update(stored[8 + length + start : 8 + length + end])
    assert read_checkpoint(folder).identity == digest.hexdigest()


def change(name: str, **values: object) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return apply


def swap_characters(folder: Path) -> None:
    path = folder / "vocab.json"
    first, second, *rest = json.loads(path.read_text())
    path.write_text(json.dumps([second, first, *rest]))


def change_a_weight(folder: Path) -> None:
    path = folder / "model.safetensors"
    stored = bytearray(path.read_bytes())
    stored[-2] ^= 1  # of the last number, a bit that leaves it finite
    path.write_bytes(stored)


@pytest.mark.parametrize(
    "change_one",
    [
        swap_characters,
        change_a_weight,
        change("config.json", logit_scale=0.5),
        change("config.json", n_head=4),
        change("config.json", block_size=32),
    ],
)
def test_the_identity_is_of_all_that_decides_a_text(folder: Path, change_one: Callable[[Path], object]) -> None:
    """With two characters of vocab.json swapped, a checkpoint kept its identity, and a text was resumed across the
    change: the identity was of the weights and the configuration alone. It is of the vocabulary too.
    """
    before = read_checkpoint(folder)
    change_one(folder)
    after = read_checkpoint(folder)
    assert after.identity != before.identity
    assert len(after.identity) == 64


def test_the_identity_stays_where_nothing_that_decides_a_text_has_changed(folder: Path, tmp_path: Path) -> None:
    """Written again, with other white space, other escapes, another record, 1 for 1.0 and true."""
    before = read_checkpoint(folder)
    again = tmp_path / "again"
    again.mkdir()
    write_checkpoint(again, before)
    assert read_checkpoint(again).identity == before.identity
    for name in ("config.json", "vocab.json"):
        path = again / name
        path.write_text(json.dumps(json.loads(path.read_text()), indent=7, ensure_ascii=False))
    change("config.json", logit_scale=1, bias=False, qk_norm=1)(again)
    change("training.json", val_loss=3.0)(again)
    assert read_checkpoint(again).identity == before.identity
    assert read_checkpoint(again).former_identity != before.former_identity  # was of the file as it is


SHOWN = {"dataset": {"name": "a play", "characters": 9, "bytes": 9, "sha256": "0" * 64}, "val_method": "whole"}


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        ({"dataset": {"name": "a\x00b"}}, {"dataset": {"name": "a\ufffdb"}}),
        ({"dataset": {"name": "a\ud800b"}}, {"dataset": {"name": r"a\ud800b"}}),
        ({"dataset": {"name": "a\x1b[31mb"}}, {"dataset": {"name": "a\ufffd[31mb"}}),
        ({"dataset": {"name": "é日\n"}}, {"dataset": {"name": "é日\n"}}),
        ({"dataset": {"name": "a", "more": ["\udfff"]}}, {"dataset": {"name": "a"}}),
        ({"dataset": {}}, {"dataset": {}}),
        ({"val_method": "\x00" * 20_000}, {"val_method": "\ufffd" * 9_999 + "…"}),
        ({"commit": "\x9f"}, {"commit": "\ufffd"}),
        ({"baselines": {"\ud800": 1.0}}, {"baselines": {r"\ud800": 1.0}}),
        ({"recipe": {"note": [{"\ud800": "\x00"}]}}, {"recipe": {"note": [{r"\ud800": "\ufffd"}]}}),
        (SHOWN, SHOWN),
    ],
)
def test_what_cannot_be_shown_of_a_record_is_cleaned(
    folder: Path, record: dict[str, Any], kept: dict[str, Any]
) -> None:
    """A data set's name with half a surrogate pair made `/` and `/info` 500: texts were shown as they stood in
    training.json. They are cleaned when the checkpoint is read.
    """
    (folder / "training.json").write_text(json.dumps(record))
    assert read_checkpoint(folder).training == kept


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"dataset": {"name": "x" * 300}}, "dataset: Value error, its name"),
        ({"dataset": {"characters": -1}}, "dataset: Value error, its characters"),
        ({"dataset": {"bytes": 10**30}}, "dataset: Value error, its bytes"),
        ({"dataset": {"characters": "9"}}, "dataset: Value error, its characters"),
        ({"dataset": {"sha256": 3}}, "dataset: Value error, its sha256"),
        ({"recipe": {"preset": ["gpu"]}}, "recipe: Value error, its preset"),
        ({"recipe": {"max_iters": 1e300}}, "recipe: Value error, its max_iters"),
        ({"val_loss": 1e308}, "val_loss"),
        ({"val_loss": 10**400}, "val_loss"),
        ({"val_loss": -1}, "val_loss"),
        ({"seconds": 1e308}, "seconds"),
        ({"baselines": {"uniform": 1e308}}, "baselines.uniform"),
        ({"baselines": {str(i): 1.0 for i in range(101)}}, "baselines"),
        ({"curve": [{"step": 10**30, "train": None, "val": 1.0}]}, "curve.0.step"),
        ({"curve": [{"step": 1, "train": 1e300, "val": 1.0}]}, "curve.0.train"),
        ({"date": "9999-12-31T23:59:59"}, "date"),
        ({"date": "0001-01-01"}, "date"),
        ({"date": "\ud800"}, "date"),
        ({"recipe": {"a": json.loads("[" * 30 + "]" * 30)}}, "nested deeper than 16"),
    ],
)
def test_what_a_record_cannot_say_is_refused(folder: Path, record: dict[str, Any], words: str) -> None:
    (folder / "training.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=words) as caught:
        read_checkpoint(folder)
    assert "training.json" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_half_precision_halves_the_file_and_is_served_in_fp32(tmp_path: Path, folder: Path) -> None:
    half = tmp_path / "half"
    half.mkdir()
    write_checkpoint(half, tiny_checkpoint(), BFLOAT16)
    assert (half / "model.safetensors").stat().st_size < (folder / "model.safetensors").stat().st_size * 0.65
    network = read_checkpoint(half).network()
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json: cannot be read"),
        (lambda folder: (folder / "vocab.json").unlink(), "vocab.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "missing or truncated"),
        (truncate, "missing or truncated"),
        (change("config.json", format=2), "format 2 is not known"),
        (change("config.json", n_head=3), "config.json: n_embd: 16 is not a multiple"),
        (change("config.json", surprise=1), "surprise"),
        (change("config.json", n_embd=32), r"key.weight has shape \(16, 16\), config.json asks for \(32, 32\)"),
        (change("config.json", n_layer=3), "no tensor blocks.2"),
        (change("config.json", n_layer=1), "has a tensor blocks.1"),
        (change("config.json", vocab_size=62), "61 characters but config.json says vocab_size 62"),
        (lambda folder: (folder / "vocab.json").write_text('["a", "a"]'), "twice"),
        (lambda folder: (folder / "vocab.json").write_text('["ab"]'), "single characters"),
        (lambda folder: (folder / "vocab.json").write_text("{"), "vocab.json"),
    ],
)
def test_a_damaged_folder_is_refused_by_what_is_wrong(
    folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such checkpoint folder"):
        read_checkpoint(tmp_path / "nowhere")


def test_a_network_needs_no_training_record(folder: Path) -> None:
    (folder / "training.json").unlink()
    assert read_checkpoint(folder).training == {}
    assert read_checkpoint(folder).network().config == ROTARY
