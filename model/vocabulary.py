"""Characters and their ids. Knows nothing of tensors."""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from model.atomic_files import read_json
from model.errors import CheckpointError, UnknownCharacter, UnknownCharactersError

# Typographic characters, and the ASCII text that a typewriter would have for them.
TYPEWRITER = {
    "‘": "'", "’": "'", "‚": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"',
    "–": "-", "—": "--", "−": "-", "…": "...", "\t": "  ", "\n": " ", "\r": "\n", "\u00a0": " ",
    "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ß": "ss", "ł": "l", "Ł": "L",
    "[": "(", "]": ")", "{": "(", "}": ")",
}  # fmt: skip
MAX_COMBINING_MARKS = 30  # after one character


class Vocabulary:
    """The characters that a model knows; a character's id is its index among them.

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

    @property
    def default_prompt(self) -> str:
        """The prompt of a text without one: a line break, else a space, else the first character."""
        for character in ("\n", " "):
            if character in self._ids:
                return character
        return self.characters[0]

    def encode(self, text: str, field: str = "text") -> list[int]:
        """The ids of the characters of `text`.

        Raises:
            UnknownCharactersError: names `field` and each unknown character, its position, and what to use instead.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            raise UnknownCharactersError(field, self.find_unknown(text)) from None

    def find_unknown(self, text: str) -> list[UnknownCharacter]:
        """The characters of a text that are not in this vocabulary, each with the combining marks after it.

        The replacement of each stands for the character and its marks.
        """
        replacements: dict[str, str] = {}
        found: list[UnknownCharacter] = []
        for position, character in split_marked(text):
            if not self.can_write(character):
                if character not in replacements:
                    replacements[character] = self.replacement(character)
                found.append(UnknownCharacter(character, position, replacements[character]))
        return found

    def can_write(self, text: str) -> bool:
        """Whether all characters of `text` are known."""
        return all(character in self._ids for character in text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text whose characters have these ids."""
        return "".join(self.characters[i] for i in ids)

    def replacement(self, character: str) -> str:
        """The closest text of known characters.

        It is the same character composed or decomposed, its letter without the accent, one of these in the other
        case, or "?".
        """
        forms = [unicodedata.normalize(form, character) for form in ("NFC", "NFD", "NFKC", "NFKD")]
        without_marks = "".join(part for part in forms[-1] if not _is_mark(part))
        swapped = [text.swapcase() for text in (*forms, without_marks)]
        for candidate in (TYPEWRITER.get(character, ""), *forms, without_marks, *swapped, "?", " "):
            if candidate and self.can_write(candidate):
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


def split_marked(text: str) -> Iterator[tuple[int, str]]:
    """Yield the position of each character of a text, and the character with the combining marks that follow it.

    Vowels and finals of Hangul count as marks. A character has up to 30 marks, Unicode's own limit (UAX 15).
    """
    start = 0
    for position in range(1, len(text) + 1):
        if position < len(text) and position - start <= MAX_COMBINING_MARKS and _is_mark(text[position]):
            continue
        yield start, text[start:position]
        start = position


def _is_mark(character: str) -> bool:
    """Whether a character combines with the one before it."""
    return "\u1160" <= character <= "\u11ff" or unicodedata.category(character).startswith("M")


def _is_character(value: object) -> bool:
    """Whether a value is a text of one code point, and not half of a surrogate pair."""
    return isinstance(value, str) and len(value) == 1 and not "\ud800" <= value <= "\udfff"
