"""The zip archive that `torch.save` writes.

NAME/data.pkl     the pickle of the saved value; tensors in it refer to storages by their keys
NAME/data/KEY     the bytes of a storage
NAME/byteorder    "little" or "big"

PyTorch compresses nothing. So no entry may be compressed, and all entries together may be no larger than the file:
what is allocated for them is bounded by the file's own size.
"""

import io
import os
import zipfile
from typing import Any

import torch

from training.untrusted.checks import MAX_FILE_BYTES, UnsafeError, require_whole_numbers, shown
from training.untrusted.pickle_machine import MAX_PICKLE_BYTES, run_pickle
from training.untrusted.tensors import TORCH_NAMES, Storage, StorageType

MAX_DIRECTORY_BYTES = 1 << 22  # of a zip archive's list of entries
READ_SIZE = 1 << 20  # bytes
ZIP_START = b"PK\x03\x04"
LEGACY_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # protocol 2, and PyTorch's magic number
ENCRYPTED = 1  # a zip entry's flag


class BoundedFile(io.FileIO):
    """A file that refuses to read more at once than a zip archive's list of entries may have.

    `zipfile` reads that list in one call, however long the archive says that it is, and makes an object of each
    entry.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as `io.FileIO` does, up to `MAX_DIRECTORY_BYTES`."""
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > MAX_DIRECTORY_BYTES:
            raise UnsafeError(f"its list of entries has more than {MAX_DIRECTORY_BYTES:,} bytes")
        return super().read(size)


class TorchArchive:
    """An archive whose entries are known to be unique, uncompressed, and together no larger than the file.

    Args:
        size: of the file, in bytes.

    Raises:
        UnsafeError: they are not.
    """

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._archive = archive
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in archive.infolist():
            if entry.filename in self._entries:
                raise UnsafeError(f"its entry {shown(entry.filename)} is there twice")
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & ENCRYPTED:
                raise UnsafeError(
                    f"its entry {shown(entry.filename)} is compressed or encrypted; PyTorch's are not"
                )
            self._entries[entry.filename] = entry
        total = sum(max(entry.file_size, entry.compress_size) for entry in self._entries.values())
        if total > size:
            raise UnsafeError(f"it has {size:,} bytes, but would unpack to {total:,}")
        self._storages: dict[str, Storage] = {}
        self._folder = ""

    def load(self) -> Any:
        """The value that was saved."""
        pickles = [name for name in self._entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise UnsafeError("it is a zip archive, but not one that torch.save wrote: it has no NAME/data.pkl")
        self._folder = pickles[0].removesuffix("data.pkl")
        if f"{self._folder}constants.pkl" in self._entries:
            raise UnsafeError("it is a TorchScript program; save the model's state_dict instead")
        order = self._folder + "byteorder"
        if order in self._entries and self._read(order, 16).tobytes() != b"little":
            raise UnsafeError("its numbers have their bytes in big-endian order; save it again on another machine")
        content = self._read(pickles[0], MAX_PICKLE_BYTES).tobytes()
        return run_pickle(content, TORCH_NAMES, self._load_storage)

    def _load_storage(self, identity: object) -> Storage:
        """The storage that a persistent id names: ("storage", its class, key, device, how many numbers)."""
        if type(identity) is not tuple or len(identity) != 5 or type(identity[0]) is not str:
            raise TypeError("a persistent id that PyTorch does not write")
        _, kind, key, _, count = identity
        [count] = require_whole_numbers((count,))
        if not isinstance(kind, StorageType) or type(key) is not str:
            raise TypeError("a storage without a class or a key")
        if key not in self._storages:
            size = count * kind.dtype.itemsize
            content = self._read(f"{self._folder}data/{key}", MAX_FILE_BYTES)
            if len(content) != size:
                raise UnsafeError(f"storage {shown(key)} has {len(content):,} bytes, not {size:,} as it says")
            self._storages[key] = Storage(_as_storage(content), kind.dtype)
        if self._storages[key].dtype != kind.dtype:
            raise UnsafeError(f"storage {shown(key)} is said to be of two types")
        return self._storages[key]

    def _read(self, name: str, max_bytes: int) -> memoryview:
        """The bytes of an entry, checked against its CRC-32."""
        if name not in self._entries:
            raise UnsafeError(f"it has no entry {shown(name)}")
        size = self._entries[name].file_size
        if size > max_bytes:
            raise UnsafeError(f"its entry {shown(name)} has {size:,} bytes, more than {max_bytes:,}")
        content = memoryview(bytearray(size))
        position = 0
        with self._archive.open(self._entries[name]) as entry:
            while chunk := entry.read(READ_SIZE):
                content[position : position + len(chunk)] = chunk
                position += len(chunk)
        if position != size:
            raise EOFError(f"entry {shown(name)} is cut off")
        return content


def _as_storage(content: memoryview) -> torch.UntypedStorage:
    """A storage over the same bytes, not copied."""
    if not content:
        return torch.empty(0, dtype=torch.uint8).untyped_storage()
    return torch.frombuffer(content, dtype=torch.uint8).untyped_storage()


def check_start(start: bytes) -> None:
    """Refuse a file whose first bytes are not those of a zip archive.

    Raises:
        UnsafeError: says what it is instead, as far as that is known.
    """
    if start == LEGACY_START:
        raise UnsafeError(
            "it is in PyTorch's format of before version 1.6 (2020), which is not read here; load it with PyTorch "
            "and torch.save it again"
        )
    if not start.startswith(ZIP_START):
        raise UnsafeError("it does not begin as a file of torch.save")
