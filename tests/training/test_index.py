"""`python -m training.index`, and the file it writes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from model.analysis.measure import measure
from model.analysis.overlap import MAX_RUN
from model.analysis.text_index import TextIndex, digest_of
from model.checkpoint import INDEX_FILE, read_checkpoint, write_checkpoint
from model.cli import run
from model.errors import CheckpointError
from tests.tiny import tiny_folder, tiny_index, tiny_play
from training.copies import FILTER_SPECS, MAX_COPY_INDEX_BYTES, choose_filter_specs, make_copy_index
from training.dataset import Dataset, from_text
from training.index import IndexSettings, add_index, cut_pieces, make_index

PLAY = tiny_play()
SHA = "ab" * 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_folder(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    from_text(PLAY, {"name": "play", "sha256": SHA}).save(tmp_path / "data")
    return tmp_path / "data"


def record(folder: Path, sha256: str) -> None:
    (folder / "training.json").write_text(json.dumps({"dataset": {"sha256": sha256}}))


def test_an_index_is_added_and_the_checkpoint_stays_the_same(
    folder: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_checkpoint(folder)
    assert before.index is None
    assert run(IndexSettings, add_index, [f"--checkpoint={folder}", f"--data={data}"]) == 0
    assert f"{(folder / INDEX_FILE).stat().st_size:,} bytes" in capsys.readouterr().out
    after = read_checkpoint(folder)
    assert after.identity == before.identity
    assert after.index is not None
    made = make_index(Dataset.load(data), None)
    assert after.index.words == made.words
    assert after.index.speakers == made.speakers
    assert after.index.held_out == made.held_out
    assert after.index.sha256 == SHA
    text = tiny_play(1)
    assert after.index.copies.lengths(text).tolist() == made.copies.lengths(text).tolist()


def test_it_is_written_with_the_checkpoint_and_is_always_the_same_file(folder: Path, data: Path) -> None:
    run(IndexSettings, add_index, [f"--checkpoint={folder}", f"--data={data}"])
    other = folder.with_name("other")
    other.mkdir()
    write_checkpoint(other, read_checkpoint(folder))
    assert (other / INDEX_FILE).read_bytes() == (folder / INDEX_FILE).read_bytes()
    run(IndexSettings, add_index, [f"--checkpoint={other}", f"--data={data}"])
    assert (other / INDEX_FILE).read_bytes() == (folder / INDEX_FILE).read_bytes()


def change(name: str) -> Callable[[Path], None]:
    """Change one bit of a tensor."""

    def apply(path: Path) -> None:
        content = bytearray(path.read_bytes())
        header = int.from_bytes(content[:8], "little")
        start = json.loads(content[8 : 8 + header])[name]["data_offsets"][0]
        content[8 + header + start] ^= 1
        path.write_bytes(content)

    return apply


def rewrite(index: object) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        path.write_bytes(save(load_file(path), {"index": json.dumps(index)}))

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "is it truncated"),
        (lambda path: path.write_bytes(b""), "is it truncated"),
        (lambda path: path.write_bytes(save({"keys": np.zeros(1)})), "cannot be read .*index"),
        (change("cells"), "is damaged"),
        (change("words"), "is damaged"),
        (rewrite({"format": 2}), "is not an index of format 1"),
        (rewrite([]), "is not an index of format 1"),
        (rewrite({"format": 1}), "is damaged"),
        (lambda path: record(path.parent, "cd" * 32), "is the index of another text .*abab.* than .*cdcd"),
    ],
)
def test_a_damaged_or_foreign_index_is_refused_and_can_be_made_again(
    folder: Path, data: Path, damage: Callable[[Path], object], message: str
) -> None:
    arguments = [f"--checkpoint={folder}", f"--data={data}"]
    assert run(IndexSettings, add_index, arguments) == 0
    damage(folder / INDEX_FILE)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(folder)
    record(folder, SHA)
    assert run(IndexSettings, add_index, arguments) == 0
    assert read_checkpoint(folder).index is not None


def test_an_index_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    path = tmp_path / INDEX_FILE
    tiny_index().save(path)
    with pytest.raises(CheckpointError, match="int32"):
        _without_digest(path, rungs=np.zeros((1, 5), np.int32))
    with pytest.raises(CheckpointError, match="words is float64"):
        _without_digest(path, words=np.zeros(3))


def _without_digest(path: Path, **tensors: NDArray[np.generic]) -> TextIndex:
    """Load a file whose content is wrong though it is what was written."""
    changed = {**load_file(path), **tensors}
    broken = path.with_name("broken.safetensors")
    about = {"format": 1, "digest": digest_of(changed), "sha256": None, "held_out": []}
    broken.write_bytes(save(changed, {"index": json.dumps(about)}))
    return TextIndex.load(broken, None)


def test_data_of_another_text_is_refused(
    folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(folder, "cd" * 32)
    assert run(IndexSettings, add_index, [f"--checkpoint={folder}", f"--data={data}"]) == 2
    assert "is of another text (SHA-256 abababababab) than the checkpoint was" in capsys.readouterr().err
    from_text("日本語" * 100, {}).save(tmp_path / "other")
    assert run(IndexSettings, add_index, [f"--checkpoint={folder}", f"--data={tmp_path / 'other'}"]) == 2
    assert "never seen" in capsys.readouterr().err
    assert not (folder / INDEX_FILE).exists()


def test_held_out_figures_are_measured_by_the_same_function() -> None:
    dataset = from_text(PLAY, {})
    index = make_index(dataset, None)
    val = dataset.vocabulary.decode(dataset.val.tolist())
    for held_out in index.held_out:
        pieces = cut_pieces(val, held_out.characters)
        figures = [measure(piece, index, None, dataset.vocabulary).figures for piece in pieces]
        assert held_out.pieces == len(figures)
        for name, bounds in held_out.figures.items():
            values = [one[name] for one in figures if name in one]
            assert bounds.mean == pytest.approx(np.mean(values))
            assert min(values) <= bounds.low <= bounds.high <= max(values)


@pytest.mark.parametrize("characters", [20, 300, 3000])
def test_short_texts_have_an_index_too(characters: int) -> None:
    index = make_index(from_text(PLAY[:characters], {}), None)
    assert not index.held_out or characters == 3000
    assert index.sha256 is None
    assert index.words.words


def test_pieces_begin_with_a_line_where_there_is_one() -> None:
    lines = "".join(f"line {number:03}\n" for number in range(100))
    pieces = cut_pieces(lines, 50)
    assert len(pieces) == len(set(pieces)) > 30
    assert all(piece.startswith("line ") and len(piece) == 50 for piece in pieces)
    assert pieces[0] == lines[:50]
    assert pieces[-1] in lines[-60:]
    assert cut_pieces("abcdefghijklmnopqrst", 2)[:3] == ["ab", "bc", "cd"]


def test_too_few_pieces_are_none() -> None:
    assert cut_pieces("", 4) == cut_pieces("a" * 39, 4) == []
    assert len(cut_pieces("a" * 40, 4)) == 20


def test_a_long_text_has_wider_strides_then_fewer_filters() -> None:
    assert choose_filter_specs(1_000_000) == FILTER_SPECS
    for characters in (5_000_000, 50_000_000, 200_000_000):
        specs = choose_filter_specs(characters)
        assert sum(1.13 * characters / spec.stride for spec in specs) <= MAX_COPY_INDEX_BYTES
        assert [spec.min_run for spec in specs] == [spec.min_run for spec in FILTER_SPECS][-len(specs) :]
    assert len(choose_filter_specs(10**12)) == 1


def test_filters_of_any_size_can_be_filled() -> None:
    text = "".join(map(chr, np.random.default_rng(0).integers(97, 123, 3000)))
    for size in (10, 11, 12, 20, 50, 100, 300, 3000):
        index = make_copy_index(text[:size], [(10, 1)])
        assert index.lengths(text[:size])[-1] == size


@pytest.mark.parametrize("first", [1, 1 << 20, 1 << 22, 1 << 24, 1 << 26])
def test_the_filters_fit_together_for_every_size_of_text(first: int) -> None:
    """Texts of 3.4 to 6.5 million characters could not be trained on: strides were widened one by one, until the
    substrings of 50 were shorter than those of 30, which an index refuses. A stride is now no wider than the filter
    before allows. All sizes from 1 to 2**31 are tried, at steps of a thousandth and at most of 2**16.
    """
    size = first
    while size < min(max(64 * first, 1 << 20), 1 << 31):
        specs = choose_filter_specs(size)
        lengths = [spec.min_run - spec.stride + 1 for spec in specs]
        assert lengths == sorted(set(lengths)), size
        assert 1 <= lengths[0] <= lengths[-1] <= MAX_RUN, size
        assert [spec.min_run for spec in specs] == [spec.min_run for spec in FILTER_SPECS][-len(specs) :], size
        assert len(specs) == 1 or sum(1.13 * size / spec.stride for spec in specs) <= MAX_COPY_INDEX_BYTES, size
        size += max(1, min(size // 1000, 1 << 16))


@pytest.mark.parametrize("size", [20, 1_000_000, 3_400_000, 4_300_000, 6_500_000, 50_000_000, 2_000_000_000])
def test_an_index_of_any_size_is_made_of_them(size: int) -> None:
    """As above, through the index itself: that of a short text, with the filters of a long one."""
    text = PLAY[:3000]
    index = make_copy_index(text, choose_filter_specs(size))
    assert index.lengths(text)[-1] == len(text)
