"""A character's log-probabilities as JSON text. Owns the fields of `details`, and how large JSON is put together.

The models describe the fields; the JSON is written without them, by string formatting: a page that asks for all
alternatives would take a whole core by way of objects. A test holds the two together.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from model.sampling.sampler import Logprob
from model.vocabulary import Vocabulary

ITEMS_PER_PART = 1000  # items of a long list that are serialised in one call


class AnswerModel(BaseModel):
    """A JSON object of an answer; the docstrings that follow its fields describe them in `/openapi.json`."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    def fields(self) -> dict[str, Any]:
        """The fields that are set, in their order, as what `json.dumps` takes."""
        return self.model_dump(mode="json", exclude_unset=True)


class Alternative(AnswerModel):
    """A character that could have come instead, or the one that came."""

    char: str
    """The character."""
    prob: float
    """Its probability by the model alone."""
    final: float
    """Its probability after temperature and filters."""


class Character(Alternative):
    """How likely the model found one character; the same as in `/generate` with `details`."""

    rank: int
    """1 for the likeliest."""
    entropy: float
    """How open the model held the choice, in bits."""
    alternatives: list[Alternative]
    """The likeliest characters, the likeliest first."""


class DetailsWriter:
    """Writes log-probabilities as the JSON of `Character`.

    Numbers have six significant digits, however small they are: enough for a page to repeat the draw from them.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._quoted = [json.dumps(character) for character in vocabulary.characters]

    def write(self, text: str, logprobs: Sequence[Logprob]) -> list[str]:
        """One JSON object for each character of `text`."""
        return [self._character(*pair) for pair in zip(text, logprobs, strict=True)]

    def _character(self, character: str, one: Logprob) -> str:
        alternatives = ",".join(
            f'{{"char":{self._quoted[i]},"prob":{p:.6g},"final":{final:.6g}}}' for i, p, final in one.alternatives
        )
        return (
            f'{{"char":{json.dumps(character)},"prob":{one.probability:.6g},"final":{one.final:.6g},'
            f'"rank":{one.rank},"entropy":{one.entropy:.6g},"alternatives":[{alternatives}]}}'
        )


def json_parts(content: object) -> Iterator[str]:
    """The JSON of a large object in parts to be joined: nothing else can run while one part is serialised."""
    if isinstance(content, dict) and content:
        before = "{"
        for name, value in content.items():
            yield f"{before}{json.dumps(name)}:"
            yield from json_parts(value)
            before = ","
        yield "}"
    elif isinstance(content, list) and len(content) > ITEMS_PER_PART:
        before = "["
        for start in range(0, len(content), ITEMS_PER_PART):
            items = json.dumps(content[start : start + ITEMS_PER_PART], separators=(",", ":"))
            yield before + items[1:-1]
            before = ","
        yield "]"
    else:
        yield json.dumps(content, separators=(",", ":"))


def json_line(content: Mapping[str, object], **lists: Sequence[str]) -> str:
    """A JSON object as one line of ASCII: the fields of `content`, which is not empty, then those of `lists`.

    The items of `lists` are JSON already.
    """
    parts = [json.dumps(content, separators=(",", ":"))[:-1]]
    for name, items in lists.items():
        parts.append(f',"{name}":[{",".join(items)}]')
    parts.append("}")
    return "".join(parts)
