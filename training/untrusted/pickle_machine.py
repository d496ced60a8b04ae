"""A pickle machine that runs no code: it makes plain values, and calls only the functions that it is given.

A pickle is a program for a stack machine. Python's own machine calls whatever the program names, and allocates
whatever size it claims. This one has these invariants:

- A name stands for a value in the mapping of names that the caller passes, or the pickle is refused. No module is
  imported and no attribute looked up.
- Only a `Function` of that mapping is called. It checks its arguments itself.
- Nothing is allocated by a size that the pickle claims: `pickletools.genops` reads an argument only as far as the
  content goes, and the number of opcodes, of copied items and of bits in a number is bounded.

Knows nothing of files and of tensors.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.untrusted.checks import UnsafeError, require_type, shown

MAX_PICKLE_BYTES = 1 << 24  # nanoGPT's largest, with an optimizer's state, has half a million
MAX_OPCODES = 1 << 21  # each makes at most one object, of about 200 bytes
MAX_BITS = 1 << 10  # of a whole number

# fmt: off
VALUE_OPCODES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}
# fmt: on
CONSTANT_OPCODES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLE_OPCODES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
REFUSED_TENSORS = {  # names that PyTorch writes for tensors that are not ordinary ones, for the message
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

LoadStorage = Callable[[object], object]


@dataclass(frozen=True)
class Function:
    """A function of ours that a pickle may call by another name; it checks its arguments."""

    call: Callable[..., object]


@dataclass
class NumpyType:
    """The type of a NumPy number. A pickle makes it with `numpy.dtype`, then sets its byte order."""

    dtype: np.dtype[Any]


def run_pickle(content: bytes, names: Mapping[str, object], load_storage: LoadStorage | None = None) -> Any:
    """The value that a pickle's opcodes make.

    Args:
        names: what it may name, as `module.name`: constants, and functions that it may call.
        load_storage: returns the object for a persistent id, which PyTorch writes for a storage; without it,
            persistent ids are refused.

    Raises:
        UnsafeError: it names something else, or is too large.
        One of DAMAGE_ERRORS: it is malformed.
    """
    if len(content) > MAX_PICKLE_BYTES:
        raise UnsafeError(f"its pickle has {len(content):,} bytes, more than {MAX_PICKLE_BYTES:,}")
    machine = _Machine(names, load_storage, max_copied=2 * len(content))
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if count == MAX_OPCODES:
            raise UnsafeError(f"its pickle has more than {MAX_OPCODES:,} steps")
        machine.step(opcode.name, argument)
    return machine.pop()


class _Machine:
    """The state of a run: a stack of values, the stacks below each mark, and a memo of values to use again.

    Args:
        max_copied: items that function calls may copy in all. Without this limit a short pickle could hand one
            long text to a function again and again, and keep every copy.
    """

    def __init__(self, names: Mapping[str, object], load_storage: LoadStorage | None, max_copied: int) -> None:
        self._names = names
        self._load_storage = load_storage
        self._max_copied = max_copied
        self._copied = 0
        self._stack: list[Any] = []
        self._stacks_below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        """Take the topmost value off the stack and return it."""
        return self._stack.pop()

    def step(self, opcode: str, argument: Any) -> None:  # noqa: PLR0912, PLR0915 - each opcode
        """Run one opcode. Values that the pickle uses several times stay shared."""
        stack = self._stack
        if opcode in VALUE_OPCODES:
            stack.append(_check_size(argument))
        elif opcode in CONSTANT_OPCODES:
            stack.append(CONSTANT_OPCODES[opcode])
        elif opcode in TUPLE_OPCODES:
            count = TUPLE_OPCODES[opcode]
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
                    self._stacks_below.append(stack)
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
                    self._push_marked(make_dict)
                case "FROZENSET":
                    self._push_marked(make_set)
                case "APPEND":
                    value = stack.pop()
                    require_type(list, stack[-1]).append(value)
                case "APPENDS":
                    values = self._marked()
                    require_type(list, self._stack[-1]).extend(values)
                case "ADDITEMS":
                    values = self._marked()
                    require_type(set, self._stack[-1]).update(make_set(values))
                case "SETITEM":
                    value = stack.pop()
                    key = stack.pop()
                    require_type(dict, stack[-1]).update(make_dict([key, value]))
                case "SETITEMS":
                    values = self._marked()
                    require_type(dict, self._stack[-1]).update(make_dict(values))
                case "GLOBAL":
                    stack.append(self._find(argument.replace(" ", ".", 1)))
                case "STACK_GLOBAL":
                    name = require_type(str, stack.pop())
                    module = require_type(str, stack.pop())
                    stack.append(self._find(f"{module}.{name}"))
                case "REDUCE" | "NEWOBJ":
                    arguments = require_type(tuple, stack.pop())
                    stack.append(self._call(stack.pop(), arguments))
                case "BUILD":
                    state = stack.pop()
                    _set_state(stack[-1], state)
                case "BINPERSID" if self._load_storage is not None:
                    stack.append(self._load_storage(stack.pop()))
                case _:
                    raise UnsafeError(f"its pickle has a step {opcode}, which plain values and tensors do not need")

    def _marked(self) -> list[Any]:
        """Take the values above the last mark off and return them; those below it become the stack again."""
        values = self._stack
        self._stack = self._stacks_below.pop()
        return values

    def _push_marked(self, make: Callable[[list[Any]], object]) -> None:
        """Replace the values above the last mark by what `make` makes of them."""
        values = self._marked()
        self._stack.append(make(values))

    def _find(self, name: str) -> object:
        """What a name stands for.

        Raises:
            UnsafeError: it is not one of the names that the pickle may use.
        """
        if name in REFUSED_TENSORS:
            raise UnsafeError(f"it holds {REFUSED_TENSORS[name]}; only ordinary tensors are read")
        if name not in self._names:
            raise UnsafeError(
                f"it names {shown(name)}, which is neither a plain value nor an ordinary tensor and may run code"
            )
        return self._names[name]

    def _call(self, function: object, arguments: tuple[Any, ...]) -> object:
        """Call one of our own functions, within the limit of copied items."""
        if not isinstance(function, Function):
            raise UnsafeError(f"it calls a {type(function).__name__}, which is not a function known here")
        self._copied += 1 + sum(len(value) for value in arguments if isinstance(value, str | bytes | list | tuple))
        if self._copied > self._max_copied:
            raise UnsafeError("it would take much more memory than the file has")
        return function.call(*arguments)


def _check_size(value: object) -> object:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise UnsafeError(f"it has a whole number of {value.bit_length():,} bits, more than {MAX_BITS:,}")
    return value


def _check_key(key: object) -> object:
    """Refuse keys whose hashes are slow to make, or can be chosen to collide."""
    if key is None or type(key) in (str, bytes, bool) or (type(key) is int and key.bit_length() < 61):
        return key
    raise UnsafeError(f"a dictionary or a set in it has a {type(key).__name__} for a key")


def make_dict(flat: list[Any]) -> dict[Any, Any]:
    """A dictionary of a flat list: a key, its value, a key, its value …"""
    keys = [_check_key(key) for key in flat[::2]]
    return dict(zip(keys, flat[1::2], strict=True))


def make_set(values: list[Any]) -> set[Any]:
    return {_check_key(value) for value in values}


def _set_state(target: object, state: object) -> None:
    """Apply a BUILD opcode: set the byte order of a NumPy type.

    Attributes of a dictionary are ignored: PyTorch gives a `state_dict` one, which does not affect the weights.
    """
    if isinstance(target, NumpyType) and isinstance(state, tuple) and state[1] in ("<", ">", "|"):
        target.dtype = target.dtype.newbyteorder(state[1])
    elif type(target) is not dict:
        raise UnsafeError(f"it sets attributes of a {type(target).__name__}")
