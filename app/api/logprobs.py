"""Likelihoods as JSON text. Owns the fields of a character's details."""

import json
from collections.abc import Iterator, Mapping, Sequence

from model.sampling.sampler import Logprob
from model.vocabulary import Vocabulary

SLICE = 1000  # items of a list that are written in one call


class DetailsWriter:
    """Writes the JSON itself: by way of objects, a page that asks for all alternatives would take a core.

    Numbers have six significant digits, however small they are: from them the draw can be made again.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._quoted = [json.dumps(character) for character in vocabulary.characters]

    def write(self, text: str, likelihoods: Sequence[Logprob]) -> list[str]:
        """One JSON object for each character of `text`."""
        return [self._one(*pair) for pair in zip(text, likelihoods, strict=True)]

    def _one(self, character: str, one: Logprob) -> str:
        alternatives = ",".join(
            f'{{"char":{self._quoted[i]},"prob":{p:.6g},"final":{final:.6g}}}' for i, p, final in one.alternatives
        )
        return (
            f'{{"char":{json.dumps(character)},"prob":{one.probability:.6g},"final":{one.final:.6g},'
            f'"rank":{one.rank},"entropy":{one.entropy:.6g},"alternatives":[{alternatives}]}}'
        )


def json_parts(content: object) -> Iterator[str]:
    """The JSON of a large object in parts that belong together: while one is written, nothing else can run."""
    if isinstance(content, dict) and content:
        before = "{"
        for name, value in content.items():
            yield f"{before}{json.dumps(name)}:"
            yield from json_parts(value)
            before = ","
        yield "}"
    elif isinstance(content, list) and len(content) > SLICE:
        before = "["
        for start in range(0, len(content), SLICE):
            yield before + json.dumps(content[start : start + SLICE], separators=(",", ":"))[1:-1]
            before = ","
        yield "]"
    else:
        yield json.dumps(content, separators=(",", ":"))


def json_line(content: Mapping[str, object], **lists: Sequence[str]) -> str:
    """One line of ASCII: an object of `content`, which is not empty, and of `lists` of what is JSON already."""
    ends = (f',"{name}":[{",".join(items)}]' for name, items in lists.items())
    return "".join((json.dumps(content, separators=(",", ":"))[:-1], *ends, "}"))
