"""Characters and their ids. Knows nothing of tensors."""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from model.atomic_files import read_json
from model.errors import CheckpointError, UnknownCharacter, UnknownCharactersError

# What typographers and keyboards produce, as a typewriter would have written it.
TYPEWRITER = {
    "‘": "'", "’": "'", "‚": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"',
    "–": "-", "—": "--", "−": "-", "…": "...", "\t": "  ", "\n": " ", "\r": "\n", "\u00a0": " ",
    "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ß": "ss", "ł": "l", "Ł": "L",
    "[": "(", "]": ")", "{": "(", "}": ")",
}  # fmt: skip
MAX_COMBINING_MARKS = 30  # after one character


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

    @property
    def default_prompt(self) -> str:
        """What a text follows where nothing is given: a line break, else a space, else the first character."""
        return next((character for character in ("\n", " ") if character in self._ids), self.characters[0])

    def encode(self, text: str, field: str = "text") -> list[int]:
        """Ids of the characters of `text`.

        Raises:
            UnknownCharactersError: names `field` and each unknown character, its position, and what to use instead.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            raise UnknownCharactersError(field, self.find_unknown(text)) from None

    def find_unknown(self, text: str) -> list[UnknownCharacter]:
        """What of a text this vocabulary cannot write: characters, each with the combining marks after it.

        What is to be used instead replaces both.
        """
        replacements: dict[str, str] = {}
        found = []
        for position, character in split_marked(text):
            if not self._can_write(character):
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
        """The nearest text that this vocabulary can write.

        The same character composed or decomposed, its letter without the accent, either in the other case, or "?".
        """
        forms = [unicodedata.normalize(form, character) for form in ("NFC", "NFD", "NFKC", "NFKD")]
        plain = "".join(one for one in forms[-1] if not _is_mark(one))
        swapped = [text.swapcase() for text in (*forms, plain)]
        for candidate in (TYPEWRITER.get(character, ""), *forms, plain, *swapped, "?", " "):
            if candidate and self._can_write(candidate):
                return candidate
        return self.characters[0]

    def _can_write(self, text: str) -> bool:
        return all(character in self._ids for character in text)

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
    """The characters of a text, each with the combining marks that follow it, and their positions.

    Vowels and finals of Hangul count as marks; so many as 30, Unicode's own limit for a stream (UAX 15).
    """
    start = 0
    for position in range(1, len(text) + 1):
        if position < len(text) and position - start <= MAX_COMBINING_MARKS and _is_mark(text[position]):
            continue
        yield start, text[start:position]
        start = position


def _is_mark(character: str) -> bool:
    return "\u1160" <= character <= "\u11ff" or unicodedata.category(character).startswith("M")


def _is_character(value: object) -> bool:
    """True for one code point that can be written: half of a surrogate pair cannot."""
    return isinstance(value, str) and len(value) == 1 and not "\ud800" <= value <= "\udfff"
