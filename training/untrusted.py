"""Pickles and PyTorch files that a stranger may have written, read without running anything in them.

A pickle is a program for a small machine. Python's own machine calls what the program names, and gives it the
memory that it claims; this one knows plain values and ordinary tensors, calls only the functions listed here, and
checks every size before anything is allocated. Knows nothing of what the files are for.
"""

import io
import math
import os
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.atomic_files import check_file
from model.errors import CheckpointError

MAX_FILE = 1 << 36  # bytes
MAX_PICKLE = 1 << 24  # bytes; nanoGPT's largest, with an optimizer's state, has half a million
MAX_OPCODES = 1 << 21  # each makes at most one object, of about 200 bytes
MAX_DIRECTORY = 1 << 22  # bytes of a zip archive's list of entries
MAX_BITS = 1 << 10  # of a whole number
MAX_DIMENSIONS = 16
READ_SIZE = 1 << 20  # bytes read at a time
MAX_SHOWN_CHARACTERS = 80  # characters of a stranger's text in a message

ZIP_START = b"PK\x03\x04"
LEGACY_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # protocol 2, and PyTorch's magic number
ENCRYPTED = 1  # a zip entry's flag
NUMPY_NUMBER = re.compile("[biuf][1248]")

# fmt: off
VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}
# fmt: on
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
NEWER_TYPES = (  # without a storage class
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
)
OTHER_TENSORS = {  # what PyTorch writes for tensors that are not ordinary ones
    "torch._utils._rebuild_qtensor": "a quantised tensor",
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without numbers (of the meta device)",
    "torch._utils._rebuild_wrapper_subclass": "a tensor of a class of its own",
    "torch._tensor._rebuild_from_type_v2": "a tensor of a class of its own",
    "torch.ComplexFloatStorage": "a tensor of complex numbers",
    "torch.ComplexDoubleStorage": "a tensor of complex numbers",
    "torch.QInt8Storage": "a quantised tensor",
    "torch.QInt32Storage": "a quantised tensor",
    "torch.QUInt8Storage": "a quantised tensor",
    "torch.QUInt4x2Storage": "a quantised tensor",
    "torch.QUInt2x4Storage": "a quantised tensor",
}
DAMAGE = (  # what malformed opcodes, arguments and archives make of code that does not expect them
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


class UnsafeError(Exception):
    """The file asks for something that is not done for a stranger; the message says for what."""


def read_pickle_file(path: Path) -> Any:
    """The plain values in a pickle: texts, numbers, lists, tuples, dictionaries and sets of them.

    Raises:
        CheckpointError: missing, not a pickle, too large, or it holds something else, such as code to run.
    """
    try:
        check_file(path, MAX_PICKLE)
        return run_pickle(path.read_bytes(), PLAIN_NAMES)
    except UnsafeError as error:
        raise CheckpointError(f"{path}: refused, {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except DAMAGE as error:
        raise CheckpointError(f"{path}: not a whole pickle ({_shown(error)})") from error


def read_torch_file(path: Path) -> Any:
    """What `torch.save` wrote: plain values and ordinary tensors, these on the CPU.

    Takes no more memory than the file's own size and a bounded amount for the values.

    Raises:
        CheckpointError: missing, damaged, too large, or it holds something else, such as code to run.
    """
    try:
        check_file(path, MAX_FILE)
        with _CarefulFile(path) as file:
            _check_start(file.read(len(LEGACY_START)))
            with zipfile.ZipFile(file) as archive:
                return _Archive(archive, path.stat().st_size).load()
    except UnsafeError as error:
        raise CheckpointError(f"{path}: refused, {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except DAMAGE as error:
        raise CheckpointError(f"{path}: cannot be read as a PyTorch file ({_shown(error)})") from error


def run_pickle(
    content: bytes, names: Mapping[str, object], load_storage: Callable[[object], object] | None = None
) -> Any:
    """The value that a pickle's opcodes make.

    Args:
        names: what it may name, as `module.name`: constants, and functions that it may call.
        load_storage: gives the object for a persistent id (PyTorch's storages); without it there are none.

    Raises:
        UnsafeError: it names something else, or is too large.
        One of DAMAGE: it is malformed.
    """
    if len(content) > MAX_PICKLE:
        raise UnsafeError(f"its pickle has {len(content):,} bytes, more than {MAX_PICKLE:,}")
    machine = _Machine(names, load_storage, may_copy=2 * len(content))
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if count == MAX_OPCODES:
            raise UnsafeError(f"its pickle has more than {MAX_OPCODES:,} steps")
        machine.step(opcode.name, argument)
    return machine.pop()


class _Machine:
    """A stack of values, the values below each mark, and a memo of values to use again."""

    def __init__(
        self, names: Mapping[str, object], load_storage: Callable[[object], object] | None, may_copy: int
    ) -> None:
        self._names = names
        self._load_storage = load_storage
        self._may_copy = may_copy  # items, by functions: of one long text, copies without end could be made
        self._copied = 0
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        """The topmost value, taken off."""
        return self._stack.pop()

    def step(self, opcode: str, argument: Any) -> None:  # noqa: PLR0912, PLR0915 - each opcode
        """Do what one opcode says; values that are shared stay shared."""
        stack = self._stack
        if opcode in VALUES:
            stack.append(_check_number(argument))
        elif opcode in CONSTANTS:
            stack.append(CONSTANTS[opcode])
        elif opcode in TUPLES:
            count = TUPLES[opcode]
            if len(stack) < count:
                raise ValueError("too few values for a tuple")
            stack[-count:] = [tuple(stack[-count:])]
        else:
            match opcode:
                case "PROTO" | "FRAME" | "STOP":
                    pass
                case "BINPUT" | "LONG_BINPUT" | "PUT":
                    self._memo[argument] = stack[-1]
                case "MEMOIZE":
                    self._memo[len(self._memo)] = stack[-1]
                case "BINGET" | "LONG_BINGET" | "GET":
                    stack.append(self._memo[argument])
                case "MARK":
                    self._below.append(stack)
                    self._stack = []
                case "POP_MARK":
                    self._marked()
                case "POP":
                    stack.pop()
                case "DUP":
                    stack.append(stack[-1])
                case "EMPTY_TUPLE":
                    stack.append(())
                case "EMPTY_LIST":
                    stack.append([])
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_SET":
                    stack.append(set())
                case "TUPLE":
                    self._push_marked(tuple)
                case "LIST":
                    self._push_marked(list)
                case "DICT":
                    self._push_marked(_make_dict)
                case "FROZENSET":
                    self._push_marked(_make_set)
                case "APPEND":
                    value = stack.pop()
                    _of_type(list, stack[-1]).append(value)
                case "APPENDS":
                    values = self._marked()
                    _of_type(list, self._stack[-1]).extend(values)
                case "ADDITEMS":
                    values = self._marked()
                    _of_type(set, self._stack[-1]).update(_make_set(values))
                case "SETITEM":
                    value = stack.pop()
                    key = stack.pop()
                    _of_type(dict, stack[-1]).update(_make_dict([key, value]))
                case "SETITEMS":
                    values = self._marked()
                    _of_type(dict, self._stack[-1]).update(_make_dict(values))
                case "GLOBAL":
                    stack.append(self._find(argument.replace(" ", ".", 1)))
                case "STACK_GLOBAL":
                    name = _of_type(str, stack.pop())
                    module = _of_type(str, stack.pop())
                    stack.append(self._find(f"{module}.{name}"))
                case "REDUCE" | "NEWOBJ":
                    arguments = _of_type(tuple, stack.pop())
                    stack.append(self._call(stack.pop(), arguments))
                case "BUILD":
                    state = stack.pop()
                    _set_state(stack[-1], state)
                case "BINPERSID" if self._load_storage is not None:
                    stack.append(self._load_storage(stack.pop()))
                case _:
                    raise UnsafeError(f"its pickle has a step {opcode}, which plain values and tensors do not need")

    def _marked(self) -> list[Any]:
        """The values above the last mark; those below it are the stack again."""
        values = self._stack
        self._stack = self._below.pop()
        return values

    def _push_marked(self, make: Callable[[list[Any]], object]) -> None:
        values = self._marked()
        self._stack.append(make(values))

    def _find(self, name: str) -> object:
        if name in OTHER_TENSORS:
            raise UnsafeError(f"it holds {OTHER_TENSORS[name]}; only ordinary tensors are read")
        if name not in self._names:
            raise UnsafeError(
                f"it names {_shown(name)}, which is neither a plain value nor an ordinary tensor and may run code"
            )
        return self._names[name]

    def _call(self, function: object, arguments: tuple[Any, ...]) -> object:
        if not isinstance(function, _Function):
            raise UnsafeError(f"it calls a {type(function).__name__}, which is not a function known here")
        self._copied += 1 + sum(len(value) for value in arguments if isinstance(value, str | bytes | list | tuple))
        if self._copied > self._may_copy:
            raise UnsafeError("it would take much more memory than the file has")
        return function.make(*arguments)


def _check_number(value: object) -> object:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise UnsafeError(f"it has a whole number of {value.bit_length():,} bits, more than {MAX_BITS:,}")
    return value


def _of_type(kind: type[Any], value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"a {type(value).__name__} where a {kind.__name__} should be")
    return value


def _check_key(key: object) -> object:
    """Only keys whose hashes are quickly made and cannot be chosen to collide."""
    if key is None or type(key) in (str, bytes, bool) or (type(key) is int and key.bit_length() < 61):
        return key
    raise UnsafeError(f"a dictionary or a set in it has a {type(key).__name__} for a key")


def _make_dict(flat: list[Any]) -> dict[Any, Any]:
    """A dictionary of a key, its value, a key, its value …"""
    keys = [_check_key(key) for key in flat[::2]]
    return dict(zip(keys, flat[1::2], strict=True))


def _make_set(values: list[Any]) -> set[Any]:
    return {_check_key(value) for value in values}


@dataclass(frozen=True)
class _Function:
    """One of this module's own functions, standing for what a pickle may call."""

    make: Callable[..., object]


def _ordered_dict(pairs: object = ()) -> dict[Any, Any]:
    return _make_dict([value for pair in _of_type(list, pairs or []) for value in _pair(pair)])


def _pair(value: Any) -> Any:
    if type(value) not in (list, tuple) or len(value) != 2:
        raise TypeError("an item of a dictionary is not a pair")
    return value


def _bytes_of_text(text: object, encoding: object) -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise TypeError("bytes that are not written as Latin-1")
    return text.encode("latin1")


@dataclass
class _NumpyType:
    """The type of a NumPy number."""

    dtype: np.dtype[Any]


def _numpy_type(name: object, *_: object) -> _NumpyType:
    """Its other arguments say nothing of the value."""
    if not isinstance(name, str) or not NUMPY_NUMBER.fullmatch(name):
        raise UnsafeError("it holds a NumPy value that is not a number")
    return _NumpyType(np.dtype(name))


def _numpy_number(kind: object, content: object) -> object:
    if not isinstance(kind, _NumpyType) or not isinstance(content, bytes):
        raise TypeError("a NumPy number without its type or its bytes")
    [value] = np.frombuffer(content, kind.dtype)
    return value.item()


def _set_state(target: object, state: object) -> None:
    """What a pickle adds to an object that it has made.

    A dictionary's attributes are left out: PyTorch gives a `state_dict` one, which says nothing of the weights.
    """
    if isinstance(target, _NumpyType) and isinstance(state, tuple) and state[1] in ("<", ">", "|"):
        target.dtype = target.dtype.newbyteorder(state[1])
    elif type(target) is not dict:
        raise UnsafeError(f"it sets attributes of a {type(target).__name__}")


@dataclass(frozen=True)
class _StorageType:
    """One of PyTorch's storage classes: the type of its numbers."""

    dtype: torch.dtype


@dataclass(frozen=True)
class _Storage:
    """Numbers that one or more tensors are views of."""

    numbers: torch.UntypedStorage
    dtype: torch.dtype


def _tensor(
    storage: object,
    offset: object,
    size: object,
    stride: object,
    _requires_grad: object,
    _hooks: object,
    metadata: object = None,
) -> Tensor:
    """An ordinary tensor: its numbers lie within the storage, no two of them in the same place by its shape."""
    if not isinstance(storage, _Storage):
        raise TypeError("a tensor without a storage")
    return _view(storage, storage.dtype, offset, size, stride, metadata)


def _typed_tensor(
    storage: object,
    offset: object,
    size: object,
    stride: object,
    _requires_grad: object,
    _hooks: object,
    dtype: object,
    metadata: object = None,
) -> Tensor:
    """As `_tensor`, of a type that has no storage class of its own."""
    if not isinstance(storage, _Storage) or not isinstance(dtype, torch.dtype):
        raise TypeError("a tensor without a storage or a type")
    if dtype not in (*STORAGES.values(), *NEWER_TYPES):
        raise UnsafeError(f"it holds a tensor of {dtype}; only ordinary tensors are read")
    return _view(storage, dtype, offset, size, stride, metadata)


def _view(
    storage: _Storage, dtype: torch.dtype, offset: object, size: object, stride: object, metadata: object
) -> Tensor:
    sizes = _whole_numbers(size)
    strides = _whole_numbers(stride)
    [start] = _whole_numbers((offset,))
    held = storage.numbers.nbytes() // dtype.itemsize
    last = start + sum((length - 1) * step for length, step in zip(sizes, strides, strict=True))
    count = math.prod(sizes)
    if len(sizes) > MAX_DIMENSIONS or max(sizes, default=0) > MAX_FILE:
        raise UnsafeError(f"it holds a tensor of {len(sizes)} dimensions, the longest of {max(sizes):,}")
    if count and (count > held or last >= held):
        raise UnsafeError(f"a tensor of {count:,} numbers is not inside its storage of {held:,}")
    if metadata:
        raise UnsafeError("it holds a tensor of conjugated or negated numbers; only ordinary tensors are read")
    view = torch.empty(0, dtype=dtype)
    return view.set_(storage.numbers, start if count else 0, sizes, strides)


def _whole_numbers(values: object) -> tuple[int, ...]:
    numbers = tuple(values) if isinstance(values, tuple | list) else (None,)
    if not all(type(value) is int and 0 <= value < 1 << 62 for value in numbers):
        raise TypeError("a tensor's shape is not of whole numbers")
    return numbers


def _parameter(data: object, _requires_grad: object, _hooks: object, _state: object = None) -> Tensor:
    if not isinstance(data, Tensor):
        raise TypeError("a parameter without a tensor")
    return data


def _shape(sizes: object) -> tuple[int, ...]:
    return _whole_numbers(sizes)


def _device(kind: object, index: object = None) -> str:
    if not isinstance(kind, str):
        raise TypeError("a device without a name")
    return kind if index is None else f"{kind}:{_whole_numbers((index,))[0]}"


def _path(*parts: object) -> str:
    return "/".join(_of_type(str, part) for part in parts)


class _CarefulFile(io.FileIO):
    """A file of which nobody reads more at a time than a zip archive's list of entries may have.

    `zipfile` reads that list at once, however long it says that it is, and makes an object of each entry.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file."""
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > MAX_DIRECTORY:
            raise UnsafeError(f"its list of entries has more than {MAX_DIRECTORY:,} bytes")
        return super().read(size)


class _Archive:
    """The zip archive that `torch.save` writes: NAME/data.pkl, NAME/data/KEY for each storage, NAME/byteorder.

    PyTorch compresses nothing, so that all entries together are no larger than the file.
    """

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._archive = archive
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in archive.infolist():
            if entry.filename in self._entries:
                raise UnsafeError(f"its entry {_shown(entry.filename)} is there twice")
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & ENCRYPTED:
                raise UnsafeError(
                    f"its entry {_shown(entry.filename)} is compressed or encrypted; PyTorch's are not"
                )
            self._entries[entry.filename] = entry
        total = sum(max(entry.file_size, entry.compress_size) for entry in self._entries.values())
        if total > size:
            raise UnsafeError(f"it has {size:,} bytes, but would unpack to {total:,}")
        self._storages: dict[str, _Storage] = {}
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
        content = self._read(pickles[0], MAX_PICKLE).tobytes()
        return run_pickle(content, TORCH_NAMES, self._load_storage)

    def _load_storage(self, identity: object) -> _Storage:
        """The storage that a persistent id names: ("storage", its class, key, device, how many numbers)."""
        if type(identity) is not tuple or len(identity) != 5 or type(identity[0]) is not str:
            raise TypeError("a persistent id that PyTorch does not write")
        _, kind, key, _, count = identity
        [count] = _whole_numbers((count,))
        if not isinstance(kind, _StorageType) or type(key) is not str:
            raise TypeError("a storage without a class or a key")
        if key not in self._storages:
            size = count * kind.dtype.itemsize
            content = self._read(f"{self._folder}data/{key}", MAX_FILE)
            if len(content) != size:
                raise UnsafeError(f"storage {_shown(key)} has {len(content):,} bytes, not {size:,} as it says")
            self._storages[key] = _Storage(_as_storage(content), kind.dtype)
        if self._storages[key].dtype != kind.dtype:
            raise UnsafeError(f"storage {_shown(key)} is said to be of two types")
        return self._storages[key]

    def _read(self, name: str, most: int) -> memoryview:
        """The bytes of an entry, checked against its CRC-32."""
        if name not in self._entries:
            raise UnsafeError(f"it has no entry {_shown(name)}")
        size = self._entries[name].file_size
        if size > most:
            raise UnsafeError(f"its entry {_shown(name)} has {size:,} bytes, more than {most:,}")
        content = memoryview(bytearray(size))
        done = 0
        with self._archive.open(self._entries[name]) as entry:
            while chunk := entry.read(READ_SIZE):
                content[done : done + len(chunk)] = chunk
                done += len(chunk)
        if done != size:
            raise EOFError(f"entry {_shown(name)} is cut off")
        return content


def _as_storage(content: memoryview) -> torch.UntypedStorage:
    """The same bytes, not copied."""
    if not content:
        return torch.empty(0, dtype=torch.uint8).untyped_storage()
    return torch.frombuffer(content, dtype=torch.uint8).untyped_storage()


def _check_start(start: bytes) -> None:
    if start == LEGACY_START:
        raise UnsafeError(
            "it is in PyTorch's format of before version 1.6 (2020), which is not read here; load it with PyTorch "
            "and torch.save it again"
        )
    if not start.startswith(ZIP_START):
        raise UnsafeError("it does not begin as a file of torch.save")


PLAIN_NAMES: dict[str, object] = {
    "collections.OrderedDict": _Function(_ordered_dict),
    "builtins.set": _Function(_make_set),
    "builtins.frozenset": _Function(_make_set),
    "__builtin__.set": _Function(_make_set),
    "__builtin__.frozenset": _Function(_make_set),
    "_codecs.encode": _Function(_bytes_of_text),
    "numpy.dtype": _Function(_numpy_type),
    "numpy.core.multiarray.scalar": _Function(_numpy_number),
    "numpy._core.multiarray.scalar": _Function(_numpy_number),
    "pathlib.Path": _Function(_path),
    "pathlib.PosixPath": _Function(_path),
    "pathlib.WindowsPath": _Function(_path),
    "pathlib._local.PosixPath": _Function(_path),
    "pathlib._local.WindowsPath": _Function(_path),
}

TORCH_NAMES = PLAIN_NAMES | {
    "torch._utils._rebuild_tensor_v2": _Function(_tensor),
    "torch._utils._rebuild_tensor_v3": _Function(_typed_tensor),
    "torch._utils._rebuild_parameter": _Function(_parameter),
    "torch._utils._rebuild_parameter_with_state": _Function(_parameter),
    "torch.storage.UntypedStorage": _StorageType(torch.uint8),
    "torch.Size": _Function(_shape),
    "torch.device": _Function(_device),
}
TORCH_NAMES |= {f"torch.{name}": _StorageType(dtype) for name, dtype in STORAGES.items()}
TORCH_NAMES |= {f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"
