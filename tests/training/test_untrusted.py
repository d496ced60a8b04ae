"""Pickles and PyTorch files of strangers: nothing is run, and nothing allocated that the file does not hold.

The faults: a number in a file of a few bytes (a length, a shape, a layer count, what a zip unpacks to) was believed
before anything was checked, so that Python or PyTorch hung, took all memory, or ended with a traceback.
The cause: the checks came after `torch.load` and `pickle.load`. The fix: `training.untrusted`, which checks first.
"""

import io
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.errors import CheckpointError
from tests.training.test_import_nanogpt import make_weights, write_files
from training.untrusted.reading import read_pickle_file, read_torch_file

ROOT = Path(__file__).parent.parent.parent
HUGE = 1 << 62


def write_archive(
    path: Path,
    content: bytes,
    storages: dict[str, bytes] | None = None,
    order: bytes = b"little",
    compression: int = zipfile.ZIP_STORED,
) -> None:
    """A file as `torch.save` writes it, around this pickle."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", order)
        for key, numbers in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", numbers)


class Named:
    """Pickles as a call of a function by its name."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class StoragePickler(pickle.Pickler):
    """Writes `Stored` objects as PyTorch writes its storages."""

    def persistent_id(self, obj: Any) -> Any:
        """What stands for the storage."""
        return obj.identity if isinstance(obj, Stored) else None


class Stored:
    """A storage that says of itself what it likes."""

    def __init__(self, count: object = 4, key: object = "0", kind: object = torch.FloatStorage) -> None:
        self.identity = ("storage", kind, key, "cpu", count)


def tensor(storage: object, offset: object, size: object, stride: object) -> Named:
    """What PyTorch writes for a tensor."""
    return Named(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {})


def pickled(value: object) -> bytes:
    """Protocol 2, as PyTorch's."""
    written = io.BytesIO()
    StoragePickler(written, 2).dump(value)
    return written.getvalue()


def test_what_torch_saves_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    base = torch.randn(6)
    saved: dict[str, Any] = {
        "state": torch.nn.Linear(3, 2).state_dict(),
        "parameter": torch.nn.Parameter(torch.randn(2)),
        "transposed": torch.arange(6).view(2, 3).t(),
        "shared": [base[:2], base[2:]],
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(1.5),
        "types": [torch.ones(2, dtype=dtype) for dtype in (torch.bfloat16, torch.float64, torch.bool, torch.uint8)],
        "plain": [None, True, -1, 1 << 70, 0.5, float("inf"), "é\n𝄞", b"\xff", (), (1,), {"a": [{}]}, {1, 2}],
        "numpy": [np.float64(0.5), np.int64(-3), np.bool_(True), np.float32(2)],
        "dtype": torch.float16,
    }
    for protocol in (2, 3, 4, 5):
        torch.save(saved, tmp_path / "saved.pt", pickle_protocol=protocol)
        read = read_torch_file(tmp_path / "saved.pt")
        assert read["plain"] == saved["plain"]
        assert read["numpy"] == saved["numpy"]
        assert read["dtype"] == torch.float16
        for name in ("parameter", "transposed", "empty", "scalar"):
            assert torch.equal(read[name], saved[name])
        for here, there in zip(read["types"], saved["types"], strict=True):
            assert here.dtype == there.dtype
            assert torch.equal(here, there)
        assert read["shared"][0].untyped_storage().data_ptr() == read["shared"][1].untyped_storage().data_ptr()
        assert torch.equal(read["state"]["weight"], saved["state"]["weight"])


NESTED = b"".join(b"]h" + bytes([i]) + b"ah" + bytes([i]) + b"aq" + bytes([i + 1]) for i in range(200))
BOMB = b"\x80\x02]q\x00" + NESTED + b"."
PICKLES: dict[str, tuple[bytes, str]] = {
    "a text of exabytes": (b"\x80\x04\x8d" + struct.pack("<Q", HUGE) + b"a.", "not a whole pickle"),
    "bytes of exabytes": (b"\x80\x05\x8e" + struct.pack("<Q", HUGE) + b"a.", "not a whole pickle"),
    "a byte array of exabytes": (b"\x80\x05\x96" + struct.pack("<Q", HUGE) + b"a.", "not a whole pickle"),
    "more than a machine's word": (b"\x80\x05\x96" + b"\xff" * 8 + b"a.", "not a whole pickle"),
    "a text of gigabytes": (b"\x80\x02X" + b"\xff\xff\xff\x7f" + b"a.", "not a whole pickle"),
    "a long number": (b"\x80\x02\x8b" + struct.pack("<i", 1000) + b"\x01" * 1000 + b".", "whole number of"),
    "a number of gigabytes": (b"\x80\x02\x8b\xff\xff\xff\x7f\x01.", "not a whole pickle"),
    "digits without end": (b"I" + b"9" * 100_000 + b"\n.", "not a whole pickle"),
    "an empty file": (b"", "not a whole pickle"),
    "cut off": (pickle.dumps({"itos": {0: "a"}})[:-3], "not a whole pickle"),
    "nothing on the stack": (b"\x80\x02.", "not a whole pickle"),
    "no mark": (b"\x80\x02u.", "not a whole pickle"),
    "no such memo": (b"\x80\x02h\x05.", "not a whole pickle"),
    "no pickle": (b"hello world", "not a whole pickle"),
    "a call": (pickle.dumps(Named(print, "pwned")), "it names builtins.print"),
    "a call of protocol 0": (pickle.dumps(Named(print, "pwned"), 0), "it names __builtin__.print"),
    "a name of two lines": (b"\x80\x04\x8c\x03o\ns\x8c\x01x\x93.", "it names o"),
    "a list as a name": (b"\x80\x04]\x8c\x01x\x93.", "not a whole pickle"),
    "an old class": (b"(ios\nsystem\n.", "its pickle has a step INST"),
    "an extension": (b"\x80\x02\x82\x01.", "its pickle has a step EXT1"),
    "a storage": (b"\x80\x02NQ.", "its pickle has a step BINPERSID"),
    "a tuple as a key": (b"\x80\x02}))s.", "a tuple for a key"),
    "numbers whose hashes are the same": (pickle.dumps({(1 << 61) - 1: 0}), "a int for a key"),
    "a frozen set in a set": (pickle.dumps({frozenset([1])}), "a set for a key"),
    "attributes of a list": (b"\x80\x02]}b.", "it sets attributes of a list"),
    "a call of a text": (b"\x80\x02X\x01\x00\x00\x00a)R.", "it calls a str"),
    "copies without end": (
        b"\x80\x02X" + struct.pack("<I", 100_000) + b"a" * 100_000 + b"q\x00X\x06\x00\x00\x00latin1q\x01"
        b"c_codecs\nencode\nq\x02" + b"h\x02h\x00h\x01\x86R" * 1000 + b".",
        "much more memory than the file has",
    ),
    "a NumPy object": (pickle.dumps(np.dtype("O")), "a NumPy value that is not a number"),
    "steps without end": (b"\x80\x02" + b"N0" * (1 << 20) + b"NN.", "more than 2,097,152 steps"),
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_strangers_pickle_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    content, message = PICKLES[name]
    path = tmp_path / "meta.pkl"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"meta\.pkl: ") as raised:
        read_pickle_file(path)
    assert message in str(raised.value)
    write_archive(tmp_path / "ckpt.pt", content)
    with pytest.raises(CheckpointError, match=r"ckpt\.pt: "):
        read_torch_file(tmp_path / "ckpt.pt")


def test_lists_that_hold_each_other_cost_nothing(tmp_path: Path) -> None:
    """200 lists, each holding the one before twice: 2 to the 200th values, if anybody walked them."""
    path = tmp_path / "meta.pkl"
    path.write_bytes(BOMB)
    assert len(read_pickle_file(path)) == 2


TENSORS: dict[str, tuple[object, str]] = {
    "beyond its storage": (tensor(Stored(), 0, (5,), (1,)), "not inside its storage"),
    "an offset beyond it": (tensor(Stored(), HUGE - 1, (1,), (1,)), "not inside its storage"),
    "strides beyond it": (tensor(Stored(), 0, (2, 2), (HUGE - 1, 1)), "not inside its storage"),
    "the same number again and again": (tensor(Stored(), 0, (1 << 20, 1 << 20), (0, 0)), "not inside its storage"),
    "sides without end": (tensor(Stored(), 0, (HUGE - 1, 0), (1, 1)), "dimensions"),
    "dimensions without end": (tensor(Stored(), 0, (1,) * 1000, (1,) * 1000), "dimensions"),
    "a negative size": (tensor(Stored(), 0, (-1,), (1,)), "cannot be read"),
    "a negative stride": (tensor(Stored(), 3, (2,), (-1,)), "cannot be read"),
    "a size that is no number": (tensor(Stored(), 0, ("4",), (1,)), "cannot be read"),
    "more strides than sizes": (tensor(Stored(), 0, (4,), (1, 1)), "cannot be read"),
    "no storage": (tensor(None, 0, (4,), (1,)), "cannot be read"),
    "a storage of exabytes": (tensor(Stored(HUGE - 1), 0, (4,), (1,)), "bytes, not"),
    "a storage of fewer bytes": (tensor(Stored(3), 0, (3,), (1,)), "16 bytes, not 12"),
    "a storage that is not there": (tensor(Stored(4, "../0"), 0, (4,), (1,)), "no entry archive/data/../0"),
    "a key that is no text": (tensor(Stored(4, 0), 0, (4,), (1,)), "cannot be read"),
    "a storage of two types": (
        [tensor(Stored(), 0, (4,), (1,)), tensor(Stored(4, "0", torch.IntStorage), 0, (4,), (1,))],
        "two types",
    ),
    "complex numbers": (tensor(Stored(2, "0", torch.ComplexFloatStorage), 0, (2,), (1,)), "complex numbers"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_that_its_storage_does_not_hold_is_refused(name: str, tmp_path: Path) -> None:
    value, message = TENSORS[name]
    write_archive(tmp_path / "ckpt.pt", pickled(value), {"0": bytes(16)})
    with pytest.raises(CheckpointError, match=r"ckpt\.pt: ") as raised:
        read_torch_file(tmp_path / "ckpt.pt")
    assert message in str(raised.value)


def special_tensors() -> dict[str, tuple[torch.Tensor, str]]:
    """Tensors that are not ordinary ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, of what it will not have any more
        return {
            "quantised": (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "quantised"),
            "sparse": (torch.eye(2).to_sparse(), "sparse"),
            "rows": (torch.eye(2).to_sparse_csr(), "sparse"),
            "meta": (torch.empty(1 << 40, device="meta"), "without numbers"),
            "complex": (torch.ones(2, dtype=torch.complex64), "complex"),
        }


@pytest.mark.parametrize("name", ["quantised", "sparse", "rows", "meta", "complex"])
def test_other_kinds_of_tensors_are_refused_by_name(name: str, tmp_path: Path) -> None:
    value, message = special_tensors()[name]
    torch.save({"w": value}, tmp_path / "ckpt.pt")
    with pytest.raises(CheckpointError, match=message):
        read_torch_file(tmp_path / "ckpt.pt")


def damaged_archives(path: Path) -> dict[str, tuple[Callable[[], object], str]]:
    """How the archive at `path` can be spoilt, and what is said then."""
    content = pickled({"w": tensor(Stored(), 0, (4,), (1,))})

    def twice() -> None:
        with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
            warnings.simplefilter("ignore")
            archive.writestr("archive/data.pkl", content)

    def overwrite(old: bytes, new: bytes) -> None:
        path.write_bytes(path.read_bytes().replace(old, new))

    def long_list() -> None:
        with zipfile.ZipFile(path, "a") as archive:
            for number in range(70):
                archive.writestr(f"archive/{number}" + "x" * 65_000, b"")

    def make_folder() -> None:
        path.unlink()
        path.mkdir()

    def encrypt() -> None:
        changed = bytearray(path.read_bytes())
        changed[changed.index(b"PK\x01\x02") + 8] |= 1  # the first entry's flags
        path.write_bytes(changed)

    zeros = bytes(1 << 24)
    return {
        "compressed": (
            lambda: write_archive(path, content, {"0": zeros}, compression=zipfile.ZIP_DEFLATED),
            "compressed or encrypted",
        ),
        "encrypted": (encrypt, "compressed or encrypted"),
        "an entry twice": (twice, "is there twice"),
        "two pickles": (lambda: add(path, "other/data.pkl", content), "no NAME/data.pkl"),
        "TorchScript": (lambda: add(path, "archive/constants.pkl", b""), "TorchScript"),
        "no pickle": (lambda: overwrite(b"archive/data.pkl", b"archive/date.pkl"), "no NAME/data.pkl"),
        "a changed number": (lambda: overwrite(b"\x01\x02\x03\x04", b"\x01\x02\x03\x05"), "CRC-32"),
        "cut off": (lambda: path.write_bytes(path.read_bytes()[:-30]), "not a zip file"),
        "big-endian": (lambda: write_archive(path, content, order=b"big"), "big-endian"),
        "a long list of entries": (long_list, "list of entries"),
        "of before 2020": (
            lambda: torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False),
            "before version 1.6",
        ),
        "not a file of PyTorch's": (lambda: path.write_bytes(b"hello"), "does not begin as"),
        "an empty file": (lambda: path.write_bytes(b""), "does not begin as"),
        "a folder": (make_folder, "not a file"),
        "nothing": (path.unlink, "cannot be read"),
    }


def add(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, content)


ARCHIVES = list(damaged_archives(Path("unused")))


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_is_not_pytorchs_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pt"
    write_archive(path, pickled({"w": tensor(Stored(), 0, (4,), (1,))}), {"0": bytes([1, 2, 3, 4] * 4)})
    damage, message = damaged_archives(path)[name]
    damage()
    with pytest.raises(CheckpointError, match=r"ckpt\.pt: ") as raised:
        read_torch_file(path)
    assert message in str(raised.value)


def test_entries_that_lie_over_each_other_do_not_multiply_the_file(tmp_path: Path) -> None:
    """A zip of 1 MB whose list names the same megabyte a hundred times would unpack to 100 MB."""
    path = tmp_path / "ckpt.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
        archive.writestr("archive/data/0", bytes(1 << 20))
        for number in range(100):
            copied = zipfile.ZipInfo(f"archive/data/{number + 1}")
            copied.file_size = 1 << 20
            copied.compress_size = 1 << 20
            copied.CRC = 0
            copied.header_offset = archive.infolist()[1].header_offset
            archive.filelist.append(copied)
    with pytest.raises(CheckpointError, match="would unpack to"):
        read_torch_file(path)


@pytest.mark.skipif(sys.platform != "linux", reason="the bound on memory is Linux's")
def test_damaged_files_are_refused_or_imported_within_bounded_memory(tmp_path: Path) -> None:
    """Hundreds of mutations in a gigabyte of memory: one line and exit code 2, or a checkpoint that can be read."""
    write_files(tmp_path, make_weights(bias=False), bias=False)
    command = [sys.executable, "-m", "tests.training.hostile", str(tmp_path), "150"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == "done\n", done.stdout + done.stderr
