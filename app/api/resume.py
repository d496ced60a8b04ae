"""Going on with a text after a break: what the id of an event says, and what `Last-Event-ID` asks for.

No state is kept. The same seed gives the same text, so it is written again, and what the client has is left out.
"""

import hashlib
import json
import re
from dataclasses import dataclass

from app.api.schemas import GenerateRequest
from app.serving.model_card import ModelCard
from model.errors import InputError
from model.generation.receipt import FORMER, Parameters
from model.sampling.noise import SEED_LIMIT
from model.vocabulary import Vocabulary

FIELD = "Last-Event-ID"
MAX_TOKEN_LENGTH = 512  # more than any id has, so that nothing longer is ever searched
FORM = re.compile(r"([0-9a-f]{12}):([a-z0-9-]+):([0-9a-f]{8}):([0-9]{1,16}):([0-9]{1,18}(?:,[0-9]{1,18})*)(:done)?")
RESUME_REMEDY = "write the text again without it"


@dataclass(frozen=True)
class Place:
    """Which text, and how many characters of each of its samples the client has. As text, the id of an event.

    `done` is of the last event: the client has all that there is.
    """

    checkpoint: str
    numerics: str
    parameters: str
    seed: int
    sent: tuple[int, ...]
    done: bool = False

    def __str__(self) -> str:
        sent = ",".join(map(str, self.sent))
        end = ":done" if self.done else ""
        return f"{self.checkpoint}:{self.numerics}:{self.parameters}:{self.seed}:{sent}{end}"

    @classmethod
    def beginning(cls, request: GenerateRequest, card: ModelCard) -> "Place":
        """Where the answer to a request in force begins."""
        parameters = Parameters.model_validate(request.parameters()).model_dump()
        canonical = json.dumps(parameters, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
        return cls(card.checkpoint, card.numerics, digest, request.seed or 0, (0,) * request.num_samples)

    @classmethod
    def parse(cls, text: str) -> "Place":
        """What an id says.

        Raises:
            InputError: it is none.
        """
        match = FORM.fullmatch(text) if len(text) <= MAX_TOKEN_LENGTH else None
        if match is None or int(match[4]) >= SEED_LIMIT:
            raise InputError(FIELD, f"is not the id of one of this server's events; {RESUME_REMEDY}")
        sent = tuple(map(int, match[5].split(",")))
        return cls(match[1], match[2], match[3], int(match[4]), sent, match[6] is not None)


def resume(
    asked: GenerateRequest, header: str | None, vocabulary: Vocabulary, card: ModelCard
) -> tuple[GenerateRequest, Place]:
    """The request in force, and the place from which on its text is sent: the beginning without a header.

    Raises:
        InputError: the header is malformed, or the id of another text.
    """
    if not header:
        in_force = asked.in_force(vocabulary)
        return in_force, Place.beginning(in_force, card)
    place = Place.parse(header)
    if asked.seed not in (None, place.seed):
        raise InputError(FIELD, f"is of a text with seed {place.seed}, not {asked.seed}; {RESUME_REMEDY}")
    in_force = asked.model_copy(update={"seed": place.seed}).in_force(vocabulary)
    if place.checkpoint == card.former:
        raise InputError(
            FIELD, f"names this checkpoint by {card.former}, {FORMER}; it is {card.checkpoint} now; {RESUME_REMEDY}"
        )
    _check(place, Place.beginning(in_force, card), in_force.max_new_tokens)
    return in_force, place


def _check(place: Place, beginning: Place, longest: int) -> None:
    """Refuse a place in another text than the one with this beginning."""
    if (place.checkpoint, place.numerics) != (beginning.checkpoint, beginning.numerics):
        there, here = (f"{one.checkpoint} on {one.numerics}" for one in (place, beginning))
        raise InputError(FIELD, f"is of a text by {there}, but {here} writes here; {RESUME_REMEDY}")
    if place.parameters != beginning.parameters:
        raise InputError(FIELD, f"is of a text with other parameters; ask with the same ones, or {RESUME_REMEDY}")
    if len(place.sent) != len(beginning.sent):
        raise InputError(
            FIELD, f"counts {len(place.sent)} samples, not num_samples {len(beginning.sent)}; {RESUME_REMEDY}"
        )
    if max(place.sent) > longest:
        raise InputError(
            FIELD, f"counts {max(place.sent)} characters, but max_new_tokens is {longest}; {RESUME_REMEDY}"
        )
