"""Characters and their ids. Knows nothing of tensors."""

import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from model.errors import CheckpointError, UnknownCharacter, UnknownCharactersError
from model.files import read_json

# What typographers and keyboards produce, as a typewriter would have written it.
TYPEWRITER = {
    "‘": "'", "’": "'", "‚": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"',
    "–": "-", "—": "--", "−": "-", "…": "...", "\t": "  ", "\r": "\n", "\u00a0": " ",
    "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ß": "ss", "ł": "l", "Ł": "L",
    "[": "(", "]": ")", "{": "(", "}": ")",
}  # fmt: skip


class Vocabulary:
    """The characters a model knows; a character's id is its place among them.

    Raises:
        CheckpointError: not one or more different single characters.
    """

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = tuple(characters)
        if not self.characters or not all(map(_is_character, self.characters)):
            raise CheckpointError("vocab.json must be a list of one or more single characters")
        self._ids = {character: i for i, character in enumerate(self.characters)}
        if len(self._ids) != len(self.characters):
            raise CheckpointError("vocab.json lists a character twice")

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str, field: str = "text") -> list[int]:
        """Ids of the characters of `text`.

        Raises:
            UnknownCharactersError: names `field` and each unknown character, its position, and what to use instead.
        """
        unknown = [
            UnknownCharacter(character, position, self.replacement(character))
            for position, character in enumerate(text)
            if character not in self._ids
        ]
        if unknown:
            raise UnknownCharactersError(field, unknown)
        return [self._ids[character] for character in text]

    def can_write(self, text: str) -> bool:
        """Whether all characters of `text` are known."""
        return all(character in self._ids for character in text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text whose characters have these ids."""
        return "".join(self.characters[i] for i in ids)

    def replacement(self, character: str) -> str:
        """The nearest text that this vocabulary can write: same letter without its accent, other case, or "?"."""
        plain = unicodedata.normalize("NFKD", character)
        plain = "".join(c for c in plain if not unicodedata.combining(c))
        for candidate in (TYPEWRITER.get(character, ""), plain, plain.swapcase(), "?", " "):
            if candidate and all(c in self._ids for c in candidate):
                return candidate
        return self.characters[0]

    def save(self, path: Path) -> None:
        """Write the characters as a JSON list, in id order."""
        path.write_text(json.dumps(self.characters) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read what `save` wrote.

        Raises:
            CheckpointError: missing or malformed.
        """
        try:
            characters = read_json(path)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error})") from error
        if not isinstance(characters, list):
            raise CheckpointError(f"{path}: must be a list of single characters")
        return cls(characters)


def _is_character(value: object) -> bool:
    """True for one code point that can be written: half of a surrogate pair cannot."""
    return isinstance(value, str) and len(value) == 1 and not "\ud800" <= value <= "\udfff"
