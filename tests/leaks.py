"""What no answer may have: a traceback, a path of this machine, a file of the program."""

import re
from pathlib import Path

# A module's name has two letters or more; one character before ".py" is met in a text that was drawn at random.
INSIDE = re.compile(r'Traceback|File "|site-packages|\w\w\.py\b|\.safetensors|0x[0-9a-f]{6,}')


def check_answer(answer: str, folder: Path) -> None:
    """Fail if an answer of a server of the checkpoint in `folder` tells of its inside."""
    found = INSIDE.search(answer)
    assert found is None, answer[max(0, found.start() - 200) : found.end() + 200]
    assert str(folder.parent) not in answer
