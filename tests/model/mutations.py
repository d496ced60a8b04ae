"""Damage to a checkpoint folder, drawn from a seed: what disks, half copies and strangers do to files."""

import json
import os
import pickle
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from model.analysis.text_index import digest_of

TENSORS = ("model.safetensors", "draft.safetensors", "copies.safetensors")
JSON = ("config.json", "vocab.json", "training.json")
FILES = TENSORS + JSON
TYPES = (
    "F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F6_E2M3", "F4", "C64", "I64", "I32", "I16", "I8",
    "U64", "U32", "U16", "U8", "BOOL", "F32\0", "f32", "",
)  # fmt: skip
WIDTHS = (torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.uint8, torch.bool, torch.complex64)
RAW = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e308", "9" * 5000, "1" + "0" * 400, "-1", "-0.0", "2.5",
    "0", str(2**31), str(2**63), str(2**64), "true", "null", "[]", "{}", '""', '"\\ud800"', '"\\u0000"', '"x"',
    '["a", "a"]', "[[[]]]", "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000, "'", "",
)  # fmt: skip
HEADERS = (0, 1, 2, 7, 8, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1)  # their lengths
MARK = "@@"  # where a raw value is put in


class Planted:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.marker),)


def flip_bits(path: Path, random: Random) -> str:
    """Anywhere, or where a safetensors file has its header."""
    content = bytearray(path.read_bytes())
    end = min(len(content), random.choice((8, 2000, len(content))))
    places = [random.randrange(end) for _ in range(random.choice((1, 1, 2, 8)))]
    for place in places:
        content[place] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    return f"bits flipped at {places}"


def cut(path: Path, random: Random) -> str:
    """Cut short, without its beginning, with something in its place or behind it."""
    content = path.read_bytes()
    place = random.randrange(len(content))
    junk = random.randbytes(random.choice((1, 8, 4096)))
    changed = (content[:place], content[place:], b"", content + junk, content + content, bytes(len(content)))
    torn = (content[:place] + bytes(len(content) - place), content[:place] + junk + content[place:])
    which = random.randrange(8)
    path.write_bytes((*changed, *torn)[which])
    return f"way {which} of cutting at {place}"


def swap(path: Path, random: Random) -> str:
    """With another file of the checkpoint."""
    other = path.with_name(random.choice([name for name in FILES if name != path.name]))
    first = path.read_bytes()
    second = other.read_bytes()
    path.write_bytes(second)
    if random.random() < 0.5:
        other.write_bytes(first)
    return f"content of {other.name}"


def stand_in(path: Path, random: Random) -> str:
    """Something else of that name: a folder, a pipe, a link to itself or to what never ends, zeros."""
    kind = random.choice(("nothing", "folder", "pipe", "loop", "endless", "dangling", "other", "sparse", "link"))
    aside = path.with_name("aside")
    path.rename(aside)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "sparse":
        aside.rename(path)
        os.truncate(path, 1 << 40)
    elif kind != "nothing":
        other = random.choice(FILES)
        targets = {
            "loop": path.name,
            "endless": "/dev/zero",
            "dangling": "nowhere",
            "other": other,
            "link": "aside",
        }
        path.symlink_to(targets[kind])
    return f"replaced by: {kind}"


def plant(path: Path, random: Random) -> str:
    """A pickle, in the place of the file or beside it."""
    beside = random.choice(("model.pt", "ckpt.pt", "pytorch_model.bin", "meta.pkl", "resume/state.pt", path.name))
    target = path.parent / beside
    target.parent.mkdir(exist_ok=True)
    planted = Planted(path.parent.with_name("marker"))
    if random.random() < 0.5:
        target.write_bytes(pickle.dumps(planted))
    else:
        torch.save({"model": planted}, target)
    return f"a pickle in {beside}"


def _leaves(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value that can be changed: what holds it, and its key there."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    places = [(value, key) for key, _ in items]
    for _, part in items:
        places += _leaves(part)
    return places


def change_json(value: Any, random: Random) -> tuple[str, str]:
    """One place of it changed, as text, and what was done."""
    holder, key = random.choice(_leaves(value))
    raw = random.choice(RAW)
    what = random.randrange(8)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[random.choice(string.ascii_letters)] = MARK
    elif what == 2 and isinstance(holder, list):
        holder.insert(key, holder[key] if random.random() < 0.5 else MARK)
    else:
        holder[key] = MARK
    if what == 3:
        return raw, f"is {raw[:20]}"
    return json.dumps(value).replace(f'"{MARK}"', raw), f"way {what} of changing {key!r} by {raw[:20]}"


def change_text(path: Path, random: Random) -> str:
    """One value of a JSON file."""
    text, what = change_json(json.loads(path.read_text()), random)
    path.write_text(text)
    return what


def change_header(path: Path, random: Random) -> str:
    """The length of a safetensors header, or one value in it, often a type or a shape."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if random.random() < 0.2:
        wrong = random.choice((*HEADERS, length - 1, length + 1, length + 8, len(content)))
        path.write_bytes(wrong.to_bytes(8, "little") + content[8:])
        return f"header length {wrong}"
    header = json.loads(content[8 : 8 + length])
    one = header[random.choice([name for name in header if name != "__metadata__"])]
    which = random.randrange(5)
    if which == 0:
        one["dtype"] = random.choice(TYPES)
    elif which == 1:
        one["shape"] = random.choice(([], one["shape"][::-1], [*one["shape"], 1], [0, 2**62], [-1, 4], [2**32] * 2))
    elif which == 2:
        one["data_offsets"] = random.choice(([0, 0], one["data_offsets"][::-1], [2**63, 2**64 - 1], [-8, 8]))
    text, what = (json.dumps(header), f"header {one}") if which < 3 else change_json(header, random)
    encoded = text.encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[8 + length :])
    return what


def change_tensor(path: Path, random: Random) -> str:
    """One tensor in a file that is otherwise well made, its digest too: a number, its type, its shape, its name."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    name = random.choice(sorted(tensors))
    tensor = tensors.pop(name).clone()
    which = random.randrange(8)
    if which < 4 and tensor.numel():
        number = random.choice((0, 1, -1, 2**62, -(2**63), 2**63 - 1, float("nan"), float("inf"), 1e38, -1e38, 0.5))
        fits = tensor.is_floating_point() or isinstance(number, int)
        numbers = tensor.view(-1).numpy()
        numbers[random.randrange(len(numbers))] = np.array(number if fits else 0).astype(numbers.dtype)
    tensor = tensor.to(random.choice(WIDTHS)) if which == 4 else tensor
    tensor = (tensor.flatten() if random.random() < 0.5 else tensor[None]).contiguous() if which == 5 else tensor
    if which != 6:
        tensors[f"{name}x" if which == 7 else name] = tensor
    if metadata and "index" in metadata:
        about = json.loads(metadata["index"])
        about["digest"] = digest_of(
            {key: value.flatten().view(torch.uint8).numpy() for key, value in tensors.items()}
        )
        metadata["index"] = change_json(about, random)[0] if which % 2 else json.dumps(about)
    save_file(tensors, path, metadata)
    return f"way {which} of changing {name}"


def mutate(folder: Path, seed: int) -> tuple[str, str]:
    """Damage one file of the folder, or now and then the folder; return its name and what was done."""
    random = Random(seed)
    if random.random() < 0.02:
        shutil.rmtree(folder)
        (folder.write_text if random.random() < 0.5 else folder.symlink_to)(folder.name)
        return folder.name, "no folder"
    name = random.choice(FILES)
    own = (
        (change_header, change_tensor, change_tensor)
        if name in TENSORS
        else (change_text, change_text, change_text)
    )
    way = random.choice((flip_bits, flip_bits, cut, swap, stand_in, plant, *own))
    return name, f"{way.__name__}: {way(folder / name, random)}"
