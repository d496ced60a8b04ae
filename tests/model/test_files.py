"""A kill at any moment leaves the old folder or the new one, whole."""

import os
from pathlib import Path
from unittest.mock import patch

import pytest

from model.files import recover, replacing


class Killed(BaseException):
    """Stands for a SIGKILL: nothing after it runs that the next process could not also miss."""


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in recover(folder).iterdir()}


def replace_with(folder: Path, text: str) -> None:
    with replacing(folder) as new:
        (new / "a").write_text(text)
        (new / "b").write_text(text)


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "x"
    replace_with(folder, "old")
    replace_with(folder, "new")
    assert content(folder) == {"a": "new", "b": "new"}
    assert [path.name for path in folder.parent.iterdir()] == ["x"]


@pytest.mark.parametrize("killed_at", range(1, 12))
def test_a_kill_at_any_step_leaves_one_whole_folder(tmp_path: Path, killed_at: int) -> None:
    folder = tmp_path / "x"
    replace_with(folder, "old")
    steps = 0

    def counted(real: object) -> object:
        def call(*arguments: object, **named: object) -> object:
            nonlocal steps
            steps += 1
            if steps >= killed_at:
                raise Killed
            return real(*arguments, **named)  # type: ignore[operator]

        return call

    names = [(os, "fsync"), (Path, "rename"), (Path, "mkdir"), (Path, "write_text")]
    patches = [patch.object(owner, name, counted(getattr(owner, name))) for owner, name in names]
    patches.append(patch("shutil.rmtree", counted(__import__("shutil").rmtree)))
    for one in patches:
        one.start()
    try:
        replace_with(folder, "new")
        finished = True
    except Killed:
        finished = False
    finally:
        for one in patches:
            one.stop()
    found = content(folder)
    assert found in ({"a": "old", "b": "old"}, {"a": "new", "b": "new"})
    if finished:
        assert found["a"] == "new"
    replace_with(folder, "later")
    assert content(folder) == {"a": "later", "b": "later"}


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    replace_with(folder, "old")
    with pytest.raises(OSError, match="disk full"), replacing(folder):
        raise OSError("disk full")
    assert content(folder) == {"a": "old", "b": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
