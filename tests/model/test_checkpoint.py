import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.checkpoint import read_checkpoint, write_checkpoint
from model.errors import CheckpointError
from tests.tiny import ROTARY, tiny_checkpoint, tiny_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_folder(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_what_is_written_is_read(folder: Path) -> None:
    written, read = tiny_checkpoint(), read_checkpoint(folder)
    assert read.config == written.config
    assert read.vocabulary.characters == written.vocabulary.characters
    assert read.training == written.training
    assert all(torch.equal(read.weights[name], tensor) for name, tensor in written.weights.items())


def test_identity_is_of_the_weights_and_the_configuration(tmp_path: Path) -> None:
    first = tiny_folder(tmp_path / "a").identity
    assert len(first) == 64
    assert tiny_folder(tmp_path / "b").identity == first
    assert tiny_folder(tmp_path / "c", seed=1).identity != first


def test_half_precision_halves_the_file_and_is_served_in_fp32(tmp_path: Path, folder: Path) -> None:
    half = tmp_path / "half"
    half.mkdir()
    write_checkpoint(half, tiny_checkpoint(), torch.bfloat16)
    assert (half / "model.safetensors").stat().st_size < (folder / "model.safetensors").stat().st_size * 0.65
    network = read_checkpoint(half).network()
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def change(name: str, **values: object) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return apply


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
